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
