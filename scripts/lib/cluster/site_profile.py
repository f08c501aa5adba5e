"""Which profile fits a cluster: what follows from each fact, and a line that says so."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lib.cluster.profile import Profile
from lib.cluster.site import Partition, Site, minutes, number, unique
from lib.core.errors import UserError
from lib.core.yaml_edit import Key, value

DEFAULTS, TRAIN = "default-resources", ("set-resources", "train")
ACCOUNT, QOS, CONSTRAINT = ((DEFAULTS, key) for key in ("slurm_account", "qos", "constraint"))
GPU_MODEL, GRES, GPU_CONSTRAINT = ((*TRAIN, key) for key in ("gpu_model", "gres", "gpu_constraint"))
# Training and evaluation ask for the memory of the config, unless set-resources says otherwise.
MEMORY = ((DEFAULTS, "mem_mb"), (*TRAIN, "mem_mb"), ("set-resources", "evaluate", "mem_mb"))
PARTITION_CONFIG, STATUS_COMMAND = ("slurm-partition-config",), ("slurm-status-command",)
JOBS = ("jobs",)

# For debugging and interactive work: best-fit would send every short training there.
NOT_FOR_BATCH = re.compile(r"(?<![a-z])(debug|devel|interac|test|viz|jupyter)", re.IGNORECASE)
BY_NAME = "by its name it is not for batch jobs"
MOST_TRIED = 4  # values of an option, where nothing says which is the right one

SCONTROL, TEST_ONLY = "scontrol show partition", "sbatch --test-only"


def options(content: Mapping) -> dict[str, str]:
    """Return the options of sbatch that a profile sets for all jobs."""
    profile = Profile(settings=content)
    names = {"account": "slurm_account", "partition": "slurm_partition"}
    names |= {name: name for name in ("qos", "constraint", "reservation")}
    found = {option: profile.for_all_jobs(name) for option, name in names.items()}
    return {option: each for option, each in found.items() if each}


def word(content: Mapping, key: Key) -> str:
    """Return a word of config.yaml without the quotes that are for the shell; empty if not set."""
    return str(value(content, key) or "").strip("\"'")


@dataclass
class Plan:
    """A profile for a cluster, found out part by part.

    Attributes:
        site: the cluster.
        content: of config.yaml as it is. What the user has set there is not changed.
        known: the partitions of partitions.yaml, where that is about this cluster.
        job: the options of sbatch of each job: those that the profile sets, then those needed.
        usable: the partitions for the jobs.
        settings: values of config.yaml by their keys, from the outside in; None: not to be set.
        partitions: limits by partition and by key, for partitions.yaml.
        findings: a line for each thing that was found out.
        choices: what only the user can decide, a line for each.
    """

    site: Site
    content: Mapping
    known: Mapping[str, Mapping]
    job: dict[str, str] = field(default_factory=dict)
    usable: list[Partition] = field(default_factory=list)
    settings: dict[Key, str | int | None] = field(default_factory=dict)
    partitions: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)

    def make(self) -> "Plan":
        """Find out everything.

        Raises:
            UserError: Slurm takes no job of this user.
        """
        config = self.site.config
        cluster = f"cluster: {config['ClusterName']}, Slurm {config['SLURM_VERSION']}"
        self.found(cluster, "scontrol show config")
        self.job = options(self.content)
        self.find_needs()
        self.find_partitions()
        gpu = self.find_gpu()
        self.find_routing(gpu)
        self.find_accounting()
        self.find_limits()
        self.explain_nodes_and_memory()
        return self

    def found(self, what: str, how: str) -> None:
        """Note what was found, and how."""
        self.findings.append(f"{what} ({how})")

    def refusal(self, now: bool = False, **more: str) -> str:
        """Return why Slurm refuses a job with more options; see `Site.refusal`."""
        return self.site.refusal({**self.job, **more}, now)

    def find_needs(self) -> None:
        """Find the options without which Slurm takes no job, beside those that are set."""
        refused = self.refusal()
        choices = self.values(refused)
        needed = self.minimal_options(**choices) if refused else {}
        if needed is None:
            raise UserError(
                f"Slurm takes no job of yours: {refused}. If it has to name an account, a QoS, or "
                "a constraint, set it in the profile as the documentation of your cluster says"
            )
        if "mem" in needed:
            self.settings |= dict.fromkeys(MEMORY, 0)
            self.found("memory: the site refuses --mem, so mem_mb is 0", TEST_ONLY)
        self.find_account(needed)
        for key, name in ((QOS, "qos"), (CONSTRAINT, "constraint")):
            if name in needed:
                self.settings[key] = needed[name]
                others = ", ".join(each for each in choices[name] if each != needed[name])
                also = others and f"; others: {others}"
                self.found(f"{name}: needed, {needed[name]}{also}", TEST_ONLY)
        self.job |= needed

    def values(self, refused: str) -> dict[str, list[str]]:
        """Return what a job may have to name, by option.

        What the refusal names comes first, and then the default account, the QoS with the longest
        time limit, and the features of nodes without a GPU.
        """
        site, said = self.site, re.findall(r"[\w.-]+", refused)
        accounts = sorted(site.accounts, key=lambda row: row["account"] != row["default"])
        longest = {row["name"]: minutes(row["wall"]) or math.inf for row in site.qos}
        qos = (name for row in site.accounts for name in row["qos"].split(",") if name)
        has_default = any(each.is_default for each in site.partitions)
        found = {
            "partition": [] if has_default else [each.name for each in site.partitions],
            "account": [row["account"] for row in accounts],
            "qos": sorted(qos, key=lambda name: -longest.get(name, math.inf)),
            "constraint": [name for each in site.partitions for name in each.features],
        }
        return {
            name: []
            if name in self.job
            else sorted(unique(each), key=lambda word: word not in said)
            for name, each in found.items()
        }

    def minimal_options(
        self, partition: list[str], account: list[str], qos: list[str], constraint: list[str]
    ) -> dict[str, str] | None:
        """Return the minimal options with which Slurm takes a job; None if none are found.

        If Slurm refuses `--mem`, one of them is `mem` without a value.
        """
        first = {"partition": partition[0]} if partition else {}
        charged = {**first, "account": account[0]} if account else first
        qos, constraint = qos[:MOST_TRIED], constraint[:MOST_TRIED]
        forms = [
            {},
            *({"partition": each} for each in partition),
            *({**first, "account": each} for each in account),
            *({**charged, "qos": each} for each in qos),
            *({**charged, "constraint": each} for each in constraint),
            *({**charged, "constraint": each, "qos": name} for each in constraint for name in qos),
        ]
        for form in [*({**form, "mem": ""} for form in forms), *forms]:
            if not self.refusal(**form):
                for name in ("mem", "account"):
                    fewer = {key: each for key, each in form.items() if key != name}
                    form = form if self.refusal(**fewer) else fewer
                return form
        return None

    def find_account(self, needed: Mapping[str, str]) -> None:
        """Say which account is charged, or that the user must choose one."""
        rows = self.site.accounts
        if "account" in self.job:
            self.found(f"account: {self.job['account']}", "profile")
        elif "account" not in needed:
            default = next((row["default"] for row in rows), "")
            charged = default and f", {default} is charged"
            self.found(f"account: none has to be named{charged}", TEST_ONLY)
        else:
            names = sorted({row["account"] for row in rows})
            names = [each for each in names if not self.refusal(**{**needed, "account": each})]
            if len(names) == 1:
                self.settings[ACCOUNT] = names[0]
                self.found(f"account: needed, {names[0]}", TEST_ONLY)
            else:
                self.found(f"account: needed, one of {', '.join(names)}", TEST_ONLY)
                choice = f"{' or '.join(names)} (make profile ACCOUNT={names[0]})"
                self.choices.append(f"{'.'.join(ACCOUNT)}: {choice}")

    def find_partitions(self) -> None:
        """Find the partitions for the jobs of a study, and their limits.

        Raises:
            UserError: there is none.
        """
        found = self.site.partitions
        why = {each.name: self.exclusion_reason(each) for each in found}
        self.usable = [each for each in found if not why[each.name]] or [
            each
            for each in found
            if why[each.name] == BY_NAME and not self.refusal(partition=each.name)
        ]
        if not self.usable:
            raise UserError("there is no partition for batch jobs; see `scontrol show partition`")
        for each in found:
            if each not in self.usable:
                left_out = f"partition {each.name}: left out, {why[each.name]}"
                self.found(left_out, f"{SCONTROL}, {TEST_ONLY}")
        for each in self.usable:
            limits = ", ".join(f"{key} {limit}" for key, limit in each.limits.items())
            self.found(f"partition {each.name}: {limits}", f"{SCONTROL}, sinfo")
            self.partitions[each.name] = each.limits

    def exclusion_reason(self, each: Partition) -> str:
        """Return why a partition is not for the jobs of a study; nothing where it is."""
        if each.state != "UP":
            return f"its state is {each.state}"
        tiers = [other.tier for other in self.site.partitions if other.is_default] or [each.tier]
        if each.name not in self.known and each.tier != tiers[0]:
            return f"its priority is {'above' if each.tier > tiers[0] else 'below'} the default"
        if each.name not in self.known and NOT_FOR_BATCH.search(each.name):
            return BY_NAME
        return self.refusal(partition=each.name)

    def find_gpu(self) -> dict[str, str]:
        """Return the options of a job with one GPU; none where there is no GPU, or no way to it."""
        with_gpus = [each for each in self.usable if "max_gpu" in each.limits]
        if not with_gpus:
            self.found("GPU: there is none", "sinfo")
            return {}
        types = unique(name for each in with_gpus for name in each.gpu_types)
        features = unique(name for each in with_gpus for name in each.gpu_features)
        forms = gpu_forms(self.content, types, features[:MOST_TRIED])
        asked = [
            {**form, "partition": each.name} for form in forms for each in with_gpus[:MOST_TRIED]
        ]
        # Only if no request is accepted now, a node that is drained or reserved will do.
        accepted = (
            form for now in (True, False) for form in asked if not self.refusal(now, **form)
        )
        if not (gpu := next(accepted, {})):
            names = ", ".join(types) or "none"
            self.found(f"GPU: no request is accepted; types: {names}", TEST_ONLY)
            return {}
        kind = (gpu.get("gpus") or gpu["gres"]).rpartition(":")[0]
        if "gres" in gpu:
            self.settings[GRES] = gpu["gres"]
        elif kind:
            self.settings[GPU_MODEL] = kind
        if "constraint" in gpu:
            self.settings[GPU_CONSTRAINT] = gpu["constraint"]
        shown = " ".join(f"--{name}={each}" for name, each in gpu.items() if name != "partition")
        others = ", ".join(name for name in types if name != kind.rpartition(":")[2])
        self.found(f"GPU: {shown}{others and f'; other types: {others}'}", TEST_ONLY)
        return gpu

    def find_routing(self, gpu: Mapping[str, str]) -> None:
        """Find out whether jobs name a partition, or Slurm chooses it."""
        self.settings[PARTITION_CONFIG] = None
        if partition := options(self.content).get("partition"):
            self.found(f"partition: {partition} for all jobs", "profile")
            return
        plugins = self.site.config.get("JobSubmitPlugins", "(null)")
        if len(self.usable) == 1 and self.usable[0].is_default:
            why = f"{self.usable[0].name} is the default"
        else:
            why = f"JobSubmitPlugins={plugins}" if plugins != "(null)" and self.routes(gpu) else ""
        if why:
            self.found(f"partition: none has to be named, {why}", f"scontrol, {TEST_ONLY}")
        else:
            named = word(self.content, PARTITION_CONFIG) or "partitions.yaml"
            self.settings[PARTITION_CONFIG] = named
            self.found("partition: each job names the one that fits best", TEST_ONLY)

    def routes(self, gpu: Mapping[str, str]) -> bool:
        """Return whether Slurm takes the longest job, and one with a GPU, without a partition."""
        longest = str(max(each.limits.get("max_runtime", 1) for each in self.usable))
        asked = ({"time": longest}, {**gpu, "partition": ""})
        return "partition" not in self.job and not any(self.refusal(True, **each) for each in asked)

    def find_accounting(self) -> None:
        """Say how the end of a job is noticed."""
        if not (reason := self.site.no_accounting):
            self.found("accounting: it answers", "sacct")
            return
        age = self.site.config.get("MinJobAge", "some time")
        self.settings[STATUS_COMMAND] = "squeue"
        self.found(
            f"accounting: none, so squeue is asked; it forgets a job {age} after its end, and "
            "then the runs' own files say how it ended",
            f"sacct: {reason}",
        )

    def find_limits(self) -> None:
        """Say how many jobs may be in the queue and run at a time."""
        if not self.site.accounts:
            return
        charged, qos = self.job.get("account"), self.job.get("qos")
        rows = [row for row in self.site.accounts if row["account"] == (charged or row["default"])]
        rows += [row for row in self.site.qos if row["name"] == qos]
        submitted, running = (
            min(filter(None, (number(row[column]) for row in rows)), default=None)
            for column in ("submitted", "running")
        )
        if submitted and int(self.content.get("jobs") or 0) > submitted:
            self.settings[JOBS] = submitted
        most = [limit or "no limit" for limit in (submitted, running)]
        self.found(f"jobs in the queue: {most[0]}; running: {most[1]}", "sacctmgr")
        if running == 1:
            only = "  `make submit` cannot work here: the driver would be the one job"
            self.findings.append(only)

    def explain_nodes_and_memory(self) -> None:
        """Say what a job really gets and costs."""
        config = self.site.config
        linear = config.get("SelectType", "").endswith("linear")
        names = [each.name for each in self.usable if linear or each.whole_nodes]
        whole = ", ".join(names)
        if whole:
            self.found(
                f"whole nodes: in {whole}; a job of one core costs all cores of its node "
                "(cpus_allocated in resources.csv)",
                SCONTROL,
            )
        if "MEMORY" not in config.get("SelectTypeParameters", "").upper():
            self.found(
                "memory: Slurm does not count it; mem_mb is no limit here, and jobs on one node "
                "share its memory",
                "scontrol show config",
            )


def gpu_forms(content: Mapping, types: list[str], features: list[str]) -> list[dict[str, str]]:
    """Return the ways to ask for a GPU, the plainest first; that of the profile, if it has one."""
    if gres := word(content, GRES):
        forms = [{"gres": gres}]
    elif model := word(content, GPU_MODEL):
        forms = [{"gpus": f"{model}:1"}]
    else:
        counts = ["1", *(f"{name}:1" for name in types)]
        forms = [{"gpus": each} for each in counts] + [{"gres": f"gpu:{each}"} for each in counts]
    return forms + [{**forms[0], "constraint": each} for each in features]
