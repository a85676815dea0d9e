"""lm-evaluation-harness on a model with and without factors. Everything here needs the extra ropewalk[lm-eval].

`tasks` finds and checks the tasks, `running` runs them on both arms, `paired` compares what came of it.
"""
