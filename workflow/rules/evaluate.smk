# Load a run's weights from disk, and measure them on the test set: on Slurm, at the end of the job
# that trains it.


rule evaluate:
    input:
        lambda wildcards: data_and_reason(wildcards, "evaluate"),
        run=TRAINED,
    output:
        EVALUATED,
    log:
        FILES.log("evaluate", "{experiment}", "{seed}").as_posix(),
    threads: lambda wildcards: experiment_of(wildcards).cpus
    resources:
        mem_mb=lambda wildcards: experiment_of(wildcards).mem_mb,
        runtime=5,
    params:
        data=lambda wildcards, output: PREPARED,
        run=subpath(output[0], parent=True),
        settings=lambda wildcards, output: experiment_of(wildcards)
        .settings(seeds.parse(wildcards.seed))
        .options(),
        train_text=lambda wildcards, output: FILES.run(wildcards.experiment, wildcards.seed).log,
        train_log=lambda wildcards, output: FILES.log("train", wildcards.experiment, wildcards.seed),
        leftovers=lambda wildcards, output: FILES.run(
            wildcards.experiment, wildcards.seed
        ).temporary,
    message:
        "Evaluate {wildcards.experiment}, seed {wildcards.seed}"
    shell:
        # The files from which a training resumes are removed only now: Slurm may start a job again
        # that has just ended, if slurmctld was away or the node was taken for lost. The training's
        # log takes the place of the link to it.
        "log_to {log:q} && python scripts/evaluate.py --run {params.run:q} --data {params.data:q}"
        " --threads {threads} {params.settings:q} >> {log:q} 2>&1"
        " && rm -f {params.leftovers:q}"
        " && if [ -e {params.train_text:q} ]; then"
        " mv -f {params.train_text:q} {params.train_log:q}; fi"
