"""How far each run of a study is, by the config, the data, and the code as they are now."""

from functools import cache

from lib.core import code_digests
from lib.core.run_state import Expected, RunState, run_state
from lib.data import prepared_record
from lib.study.study import Study


class RunStates:
    """Tells the state of each run of a study.

    It looks at the data when it is made, and reads each file of the code once, when a record names
    it. Of a run, it reads small files, and the weights only where they are newer than their record.

    Attributes:
        data_problem: why the prepared data has to be made again; None if it has not.
    """

    def __init__(self, study: Study):
        self.study = study
        data = study.layout.prepared(study.dataset)
        self.data_problem = prepared_record.damage(data)
        self.data_sha256 = None if self.data_problem else prepared_record.digest_in_record(data)
        if not prepared_record.is_of(data, study.dataset_entry):
            self.data_problem = f"{data} was made of another entry of {study.datasets_file}"
            self.data_sha256 = ""  # all results are of other data
        self.digest_of = cache(code_digests.digest_now)

    def of(self, experiment: str, seed: int) -> RunState:
        """Return the state of a run."""
        settings = self.study.experiments[experiment].settings(seed)
        return run_state(
            self.study.layout.run(experiment, seed),
            Expected(settings, self.data_sha256, self.digest_of),
            self.study.stages(experiment),
        )
