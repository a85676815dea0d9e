"""What the page asks for: the state, figures, results and charts, and what a person does to the curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk.comparison import metric_words
from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.results import TaskResult
from ropewalk.studio import charts
from ropewalk.studio.bench import Bench
from ropewalk.studio.candidates import Candidates
from ropewalk.studio.decay import decay, distances
from ropewalk.studio.draft import HIGH, LOW, Draft, drafted
from ropewalk.studio.searches import Searches
from ropewalk.studio.session import VANILLA, Session, result_key
from ropewalk.studio.worker import Worker

THIS = "this curve"

Body = dict[str, Any]
Answer = dict[str, Any]


class Studio:
    """The state, the thread that owns the model, and the runs whose candidates can be seen, one at a time.

    run: the one that was named; the searches of the session come after it. remarks: what the page says of the setting.
    """

    def __init__(
        self,
        session: Session,
        worker: Worker,
        model: str,
        searches: Searches,
        run: Candidates | None = None,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.session, self.worker, self.model, self.searches, self.remarks = session, worker, model, searches, remarks
        self.runs: dict[str, Candidates] = {} if run is None else {str(run.directory): run}
        self.runs |= {str(directory): Candidates(directory) for directory in searches.earlier()}
        self.candidates = run or next(reversed(self.runs.values()), None)

    @property
    def bench(self) -> Bench:
        """Raises `DataError` while there is no model."""
        if self.worker.bench is None:
            raise DataError(self.worker.trouble or "the model is still being loaded; try again in a moment")
        return self.worker.bench

    def state(self, query: Body) -> Answer:
        """All that the page shows but charts and candidates."""
        bench = self.worker.bench
        found: Answer = {
            "model": Path(self.model).name if Path(self.model).exists() else self.model,
            "loading": bench is None and not self.worker.trouble,
            "trouble": self.worker.trouble,
            "directory": str(self.session.directory),
            "version": self.session.version,
            "jobs": [job.view() for job in self.worker.jobs],
            "runs": list(self.runs),
            "followed": None if self.candidates is None else str(self.candidates.directory),
            "remarks": list(self.remarks),
            "search": self.searches.view(),
            **self.session.view(),
        }
        if bench is None:
            return found
        level = Draft.level().factors(bench.shape)
        return found | {
            "words": bench.words,
            "num_layers": bench.shape.num_layers,
            "rotary_layers": list(bench.shape.rotary_layers),
            "low": LOW,
            "high": HIGH,
            "distances": distances(bench.tokens),
            "vanilla_decay": decay(bench.frequencies, level.values, bench.tokens),
            "figures": self._figures(self.session.current),
        }

    def figures(self, body: Body) -> Answer:
        """Factors and decay of a curve that is being dragged; nothing is kept."""
        return self._figures(Draft.from_json(body.get("draft")))

    def _figures(self, draft: Draft) -> Answer:
        bench = self.bench
        factors = draft.factors(bench.shape)
        return {"factors": list(factors.values), "decay": decay(bench.frequencies, factors.values, bench.tokens)}

    def curve(self, body: Body) -> None:
        """The curve that was dragged to its place."""
        draft = Draft.from_json(body.get("draft"))
        draft.factors(self.bench.shape)
        self.session.change(draft)

    def undo(self, _: Body) -> None:
        """The curve before."""
        self.session.undo()

    def redo(self, _: Body) -> None:
        """The curve after."""
        self.session.redo()

    def save(self, body: Body) -> None:
        """Keep the curve under a name, and its factors in a file."""
        bench = self.bench
        name = self.session.save(body.get("name"))
        bench.factors(self.session.current, self._evaluated(self.session.current)).save(self.session.factors_path(name))

    def forget(self, body: Body) -> None:
        """Delete a saved curve."""
        self.session.forget(body.get("name"))

    def load(self, body: Body) -> None:
        """Edit a saved curve, a candidate of the run, the run's factors, or the model as it is."""
        match body:
            case {"saved": name}:
                self.session.change(self.session.draft_of(name))
            case {"candidate": [generation, slot]} if self.candidates is not None:
                self.session.change(self.candidates.draft(generation, slot, self.bench.shape))
            case {"run": True} if self.candidates is not None:
                self._edit(ScalingFactors.load(self.candidates.directory / "factors.json"))
            case {"vanilla": True}:
                self.session.change(Draft.level())
            case _:
                raise DataError('expected {"saved": NAME}, {"candidate": [GENERATION, SLOT]}, {"run": true} or so')

    def upload(self, body: Body) -> None:
        """Edit the factors of a file, which have to be made for this model."""
        self._edit(ScalingFactors.from_dict(body))

    def _edit(self, factors: ScalingFactors) -> None:
        bench = self.bench
        factors.check_model(bench.identity, bench.base)
        found = factors.found
        method = found.get("method")
        space = method.get("space", {}) if isinstance(method, dict) else {}
        try:
            draft = drafted(
                factors.values,
                bench.shape,
                found.get("control_points"),
                space.get("mode", "depth"),
                space.get("skip_first", 0),
            )
        except (RopewalkError, TypeError, AttributeError):  # what it says of its curve is no curve: the values count
            draft = drafted(factors.values, bench.shape)
        self.session.change(draft)

    def evaluate(self, body: Body) -> None:
        """Queue the current curve, or a saved one."""
        name = body.get("saved")
        draft = self.session.current if name is None else self.session.draft_of(name)
        self.worker.add(name or self._name(draft), draft.factors(self.bench.shape))

    def cancel(self, body: Body) -> None:
        """Stop an evaluation, or take it out of the queue."""
        self.worker.cancel(body.get("job"))

    def search(self, body: Body) -> None:
        """Start a search whose first generation scores the current curve, and follow it."""
        start = self.bench.factors(self.session.current)
        directory = self.searches.begin(start, body.get("budget"))
        self.candidates = self.runs[str(directory)] = Candidates(directory)

    def follow(self, body: Body) -> None:
        """Show the candidates of another of the runs."""
        if body.get("run") not in self.runs:
            raise DataError(f"no run is called {str(body.get('run'))[:200]!r}")
        self.candidates = self.runs[body["run"]]

    def look(self, body: Body) -> None:
        """What is looked at, which a reload shows again."""
        self.session.look_at(body)

    def stop(self, _: Body) -> None:
        """Let the search that was started here finish what it scores, and end."""
        self.searches.stop()

    def results(self, query: Body) -> Answer:
        """The evaluated arms against each other: averages, gains over a reference, and all numbers of the charts."""
        arms = self._arms(query)
        if not arms:
            return {"arms": [], "reference": VANILLA}
        reference = query.get("reference", VANILLA)
        reference = reference if reference in arms else VANILLA
        return {
            "arms": charts.table(arms, reference),
            "reference": reference,
            "metric": metric_words(arms[VANILLA].metric),
            **charts.positions_table(arms),
        }

    def run(self, query: Body) -> Answer:
        """The run that is followed."""
        return {} if self.candidates is None else self.candidates.view()

    def chart(self, name: str, query: Body) -> str | None:
        """One of the report's charts as SVG; None where there is nothing to draw."""
        arms = self._arms(query)
        if not arms or (name != "accuracy" and len(arms) < 2):
            return None
        chart = charts.accuracy_chart(arms) if name == "accuracy" else charts.likelihood_chart(arms)
        width = query.get("width", "")
        pixels = int(width) if width.isascii() and width.isdigit() and len(width) < 6 else 560
        return None if chart is None else charts.svg(chart, pixels, dark=query.get("theme") == "dark")

    def current_file(self, query: Body) -> ScalingFactors:
        """The current curve, or a saved one, as a file of factors."""
        name = query.get("saved")
        draft = self.session.current if name is None else self.session.draft_of(name)
        return self.bench.factors(draft, self._evaluated(draft))

    def _arms(self, query: Body) -> dict[str, TaskResult]:
        bench = self.worker.bench
        if bench is None or self._result(None) is None:
            return {}
        saved = dict(self.session.saved)
        named: dict[str, TaskResult | None] = {VANILLA: self._result(None)}
        if self.session.current not in saved.values():
            named[THIS] = self._result(self.session.current)
        named |= {name: self._result(draft) for name, draft in saved.items()}
        return charts.chosen(named, query.get("hidden", "").split("\n"))

    def _result(self, draft: Draft | None) -> TaskResult | None:
        bench = self.bench
        values = None if draft is None else draft.factors(bench.shape).values
        return self.session.result(result_key(values, bench.examples))

    def _evaluated(self, draft: Draft) -> dict[str, Any] | None:
        result = self._result(draft)
        return None if result is None else result.summary()

    def _name(self, draft: Draft) -> str:
        return next((name for name, saved in self.session.saved.items() if saved == draft), THIS)
