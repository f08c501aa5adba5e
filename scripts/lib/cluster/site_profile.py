"""Which profile fits a cluster: what follows from each fact, and a line that says so."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lib.cluster.site import NOT_FOR_BATCH, Partition, Site
from lib.core.errors import UserError
from lib.core.yaml_edit import value

DEFAULTS, TRAIN = "default-resources", ("set-resources", "train")
ACCOUNT, QOS = (DEFAULTS, "slurm_account"), (DEFAULTS, "qos")
# Training and evaluation ask for the memory of the config, unless set-resources says otherwise.
MEMORY = (
    (DEFAULTS, "mem_mb"),
    (*TRAIN, "mem_mb"),
    ("set-resources", "evaluate", "mem_mb"),
)
CONSTRAINT, GPU_CONSTRAINT = (DEFAULTS, "constraint"), (*TRAIN, "gpu_constraint")
PARTITION_CONFIG = ("slurm-partition-config",)
STATUS_COMMAND = ("slurm-status-command",)
JOBS = ("jobs",)

TEST_ONLY = "sbatch --test-only"


@dataclass
class Plan:
    """A profile for a cluster.

    Attributes:
        settings: values of config.yaml by their keys, from the outside in; None: not to be set.
        partitions: limits by partition and by key, for partitions.yaml.
        findings: a line for each thing that was found out.
        choices: what only the user can decide, a line for each.
    """

    settings: dict[tuple[str, ...], object] = field(default_factory=dict)
    partitions: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)

    def found(self, what: str, how: str) -> None:
        """Note what was found, and how."""
        self.findings.append(f"{what} ({how})")


def options(content: Mapping) -> dict[str, str]:
    """Return the options of sbatch that a profile sets for all jobs."""
    found = {
        "account": value(content, ACCOUNT),
        "qos": content.get("slurm-qos") or value(content, QOS),
        "constraint": value(content, CONSTRAINT),
        "reservation": content.get("slurm-reservation"),
        "partition": value(content, (DEFAULTS, "slurm_partition")),
    }
    return {name: str(word).strip("\"'") for name, word in found.items() if word}


def plan(site: Site, content: Mapping, known: Mapping[str, Mapping]) -> Plan:
    """Find out what profile fits.

    Args:
        site: the cluster.
        content: of config.yaml as it is. What the user has set there is not changed.
        known: the partitions of partitions.yaml, where that is about this cluster.

    Raises:
        UserError: Slurm takes no job of this user.
    """
    made = Plan()
    made.found(
        f"cluster: {site.config['ClusterName']}, Slurm {site.config['SLURM_VERSION']}",
        "scontrol show config",
    )
    needed = needs(site, made)
    usable = partitions(site, needed, known, made)
    gpu = gpu_request(site, content, needed, usable, made)
    name_partitions(site, content, needed, usable, gpu, made)
    accounting(site, made)
    limits(site, content, needed, made)
    nodes_and_memory(site, usable, made)
    return made


def needs(site: Site, made: Plan) -> dict[str, str]:
    """Return the options without which Slurm takes no job, beside those that the user has set."""
    names = [each.account for each in site.associations]
    longest = {name: each.minutes or math.inf for name, each in site.qos.items()}
    qos = dict.fromkeys(name for each in site.associations for name in each.qos)
    features = dict.fromkeys(name for each in site.partitions for name in each.features)
    choices = {
        "account": list(dict.fromkeys(names)),
        "qos": sorted(qos, key=lambda name: -longest.get(name, math.inf)),
        "constraint": list(features),
    }
    if not any(each.is_default for each in site.partitions):
        choices["partition"] = [each.name for each in site.partitions]
    choices = {name: found for name, found in choices.items() if name not in site.given}
    needed = site.fewest({}, choices)
    if needed is None:
        needed = site.fewest({"mem": ""}, choices)
        if needed is None:
            raise UserError(f"Slurm takes no job of yours: {site.refusal({})}")
        made.settings |= dict.fromkeys(MEMORY, 0)
        made.found("memory: the site refuses --mem, so mem_mb is 0", TEST_ONLY)
        needed["mem"] = ""
    account(site, needed, made)
    for key, name in ((QOS, "qos"), (CONSTRAINT, "constraint")):
        if name in needed:
            others = [each for each in choices[name] if each != needed[name]]
            made.settings[key] = needed[name]
            instead = f"; others: {', '.join(others)}" if others else ""
            made.found(f"{name}: needed, {needed[name]}{instead}", TEST_ONLY)
    return needed


def account(site: Site, needed: dict[str, str], made: Plan) -> None:
    """Say which account is charged, or that the user must choose one."""
    names = sorted({each.account for each in site.associations})
    if "account" in site.given:
        made.found(f"account: {site.given['account']}", "profile")
    elif "account" not in needed:
        default = next((each.account for each in site.associations if each.is_default), "")
        charged = f", {default} is charged" if default else ""
        made.found(f"account: none has to be named{charged}", TEST_ONLY)
    else:
        accepted = [name for name in names if site.is_accepted({**needed, "account": name})]
        if len(accepted) == 1:
            made.settings[ACCOUNT] = accepted[0]
            made.found(f"account: needed, {accepted[0]}", TEST_ONLY)
        else:
            made.found(f"account: needed, one of {', '.join(accepted)}", TEST_ONLY)
            made.choices.append(
                f"{'.'.join(ACCOUNT)}: {' or '.join(accepted)} (make profile ACCOUNT={accepted[0]})"
            )


def partitions(
    site: Site, needed: Mapping[str, str], known: Mapping[str, Mapping], made: Plan
) -> list[Partition]:
    """Return the partitions for the jobs of a study, and note their limits."""
    fit, by_name = [], []
    for each in site.partitions:
        if why := unfit(site, each, needed, each.name in known):
            left_out(each, why, made)
        elif NOT_FOR_BATCH.search(each.name) and each.name not in known:
            by_name.append(each)
        else:
            fit.append(each)
    if fit:
        for each in by_name:
            left_out(each, "by its name it is not for batch jobs", made)
    usable = fit or by_name
    if not usable:
        raise UserError("there is no partition for batch jobs; see `scontrol show partition`")
    for each in usable:
        words = ", ".join(f"{key} {number}" for key, number in each.limits.items())
        made.found(f"partition {each.name}: {words}", "scontrol show partition, sinfo")
        made.partitions[each.name] = dict(each.limits)
    return usable


def unfit(site: Site, each: Partition, needed: Mapping[str, str], is_known: bool) -> str:
    """Return why a partition is not for the jobs of a study; nothing where it is."""
    if each.state != "UP":
        return f"its state is {each.state}"
    asked = {**needed, "partition": each.name}
    refused = site.refusal(asked)
    if refused and not site.is_accepted(asked):
        return refused
    tiers = [other.tier for other in site.partitions if other.is_default]
    if is_known or not tiers or each.tier == tiers[0]:
        return ""
    return f"its priority is {'above' if each.tier > tiers[0] else 'below'} the default"


def left_out(each: Partition, why: str, made: Plan) -> None:
    """Note a partition that is not for the jobs of a study."""
    made.found(f"partition {each.name}: left out, {why}", f"scontrol show partition, {TEST_ONLY}")


def gpu_request(
    site: Site,
    content: Mapping,
    needed: Mapping[str, str],
    usable: list[Partition],
    made: Plan,
) -> dict[str, str] | None:
    """Return the options of a job with one GPU; None where there is no GPU, or no way to it."""
    with_gpus = [each for each in usable if each.gpus]
    if not with_gpus:
        made.found("GPU: there is none", "sinfo")
        return None
    types = list(dict.fromkeys(name for each in with_gpus for name in each.gpu_types))
    asked = first_accepted(site, needed, with_gpus, gpu_forms(content, types))
    if not asked:
        made.found(f"GPU: no request is accepted; types: {', '.join(types) or 'none'}", TEST_ONLY)
        return None
    option = "gpus" if "gpus" in asked else "gres"
    kind = asked[option].rpartition(":")[0]
    if option == "gres":
        made.settings[*TRAIN, "gres"] = asked["gres"]
    elif kind:
        made.settings[*TRAIN, "gpu_model"] = kind
    shown = f"--{option}={asked[option]}"
    if asked.get("constraint") != needed.get("constraint"):
        made.settings[GPU_CONSTRAINT] = asked["constraint"]
        shown += f" --constraint={asked['constraint']}"
    others = [name for name in types if name != kind.rpartition(":")[2]]
    made.found(
        f"GPU: {shown}" + (f"; other types: {', '.join(others)}" if others else ""), TEST_ONLY
    )
    return asked


def gpu_forms(content: Mapping, types: list[str]) -> list[tuple[str, str]]:
    """Return the ways to ask for a GPU, the plainest first; that of the profile, if it has one."""
    if gres := value(content, (*TRAIN, "gres")):
        return [("gres", str(gres).strip("\"'"))]
    if model := value(content, (*TRAIN, "gpu_model")):
        return [("gpus", f"{str(model).strip(chr(34) + chr(39))}:1")]
    return [
        ("gpus", "1"),
        *(("gpus", f"{name}:1") for name in types),
        ("gres", "gpu:1"),
        *(("gres", f"gpu:{name}:1") for name in types),
    ]


def first_accepted(
    site: Site,
    needed: Mapping[str, str],
    with_gpus: list[Partition],
    forms: list[tuple[str, str]],
) -> dict[str, str] | None:
    """Return the first way to a GPU that Slurm accepts, with a constraint if it takes one.

    Only if it accepts none is a node that is busy or drained taken for one that may be used.
    """
    features = list(dict.fromkeys(name for each in with_gpus for name in each.features))
    for accepts in (lambda asked: not site.refusal(asked), site.is_accepted):
        for constraint in ("", *features):
            for option, form in forms:
                for each in with_gpus:
                    more = {"constraint": constraint} if constraint else {}
                    asked = {**needed, option: form, **more, "partition": each.name}
                    if accepts(asked):
                        return asked
    return None


def name_partitions(
    site: Site,
    content: Mapping,
    needed: Mapping[str, str],
    usable: list[Partition],
    gpu: Mapping[str, str] | None,
    made: Plan,
) -> None:
    """Decide whether jobs name a partition, or Slurm chooses it."""
    if "partition" in site.given:
        made.settings[PARTITION_CONFIG] = None
        made.found(f"partition: {site.given['partition']} for all jobs", "profile")
        return
    only = len(usable) == 1 and usable[0].is_default
    plugins = site.config.get("JobSubmitPlugins", "(null)")
    longest = str(max((each.minutes or 0 for each in usable), default=0) or 1)
    without = {**(gpu or {}), "partition": ""}
    routed = (
        plugins != "(null)"
        and "partition" not in needed
        and not site.refusal({**needed, "time": longest})
        and not (gpu and site.refusal(without))
    )
    if only or routed:
        made.settings[PARTITION_CONFIG] = None
        why = f"{usable[0].name} is the default" if only else f"JobSubmitPlugins={plugins}"
        made.found(f"partition: none has to be named, {why}", "scontrol, sbatch --test-only")
    else:
        made.settings[PARTITION_CONFIG] = value(content, PARTITION_CONFIG) or "partitions.yaml"
        made.found("partition: each job names the one that fits best", TEST_ONLY)


def accounting(site: Site, made: Plan) -> None:
    """Say how the end of a job is noticed."""
    if not site.no_accounting:
        made.found("accounting: it answers", "sacct")
        return
    age = site.config.get("MinJobAge", "some time")
    made.settings[STATUS_COMMAND] = "squeue"
    made.found(
        f"accounting: none, so squeue is asked; it forgets a job {age} after its end, and then the "
        "runs' own files say how it ended",
        f"sacct: {site.no_accounting}",
    )


def limits(site: Site, content: Mapping, needed: Mapping[str, str], made: Plan) -> None:
    """Say how many jobs may be in the queue and run at a time."""
    chosen = {**needed, **site.given}
    charged = chosen.get("account")
    bounds = [
        each
        for each in site.associations
        if (each.account == charged if charged else each.is_default)
    ]
    qos = [site.qos[chosen["qos"]]] if chosen.get("qos") in site.qos else []
    most = min(filter(None, (each.max_submit for each in [*bounds, *qos])), default=None)
    running = min(filter(None, (each.max_jobs for each in [*bounds, *qos])), default=None)
    if not site.associations:
        return
    jobs = int(content.get("jobs") or 0)
    if most and jobs > most:
        made.settings[JOBS] = most
    made.found(
        f"jobs in the queue: {most or 'no limit'}; running: {running or 'no limit'}",
        "sacctmgr",
    )
    if running == 1:
        made.findings.append("  `make submit` cannot work here: the driver would be the one job")


def nodes_and_memory(site: Site, usable: list[Partition], made: Plan) -> None:
    """Say what a job really gets and costs."""
    linear = site.config.get("SelectType", "").endswith("linear")
    whole = [each.name for each in usable if each.whole_nodes or linear]
    if whole:
        made.found(
            f"whole nodes: in {', '.join(whole)}; a job of one core costs all cores of its "
            "node (cpus_allocated in resources.csv)",
            "scontrol show partition",
        )
    if "MEMORY" not in site.config.get("SelectTypeParameters", "").upper():
        made.found(
            "memory: Slurm does not count it; mem_mb is no limit here, and jobs on one node "
            "share its memory",
            "scontrol show config",
        )
