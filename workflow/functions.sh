# What the commands of the rules use.

# Begin the log of a job with where it runs, and end that of one that fails with its exit status. The
# executor for Slurm reads both. The first line is there before Python starts: if a job dies with an
# empty log, Snakemake does not show Slurm's own either, which says why.
log_to() {
    LOG=$1
    echo "$(date -Iseconds) on ${SLURMD_NODENAME:-$HOSTNAME}${SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}" >> "$LOG"
    # A program that is asked to end saves what it has. This shell ends after it.
    trap : TERM
    trap 'STATUS=$?; [ $STATUS -eq 0 ] || echo "exit status $STATUS" >> "$LOG"' EXIT
}

# Where there is a fork server (scripts/lib/forks), it starts the trainings and evaluations.
python() {
    case ${SLURM_CLASSIFIERS_FORKS:+$1} in
    scripts/train.py | scripts/evaluate.py)
        set -- "$SLURM_CLASSIFIERS_FORKS/$(basename "$1" .py).socket" "$@"
        command python -IS scripts/lib/forks/client.py "$@"
        ;;
    *) command python "$@" ;;
    esac
}
