# Train one experiment with one seed: everything about it comes from its config entry. A retry on
# Slurm may ask for more: see lib/cluster/sbatch.py.


rule train:
    input:
        lambda wildcards: data_and_reason(wildcards, "train"),
    output:
        # What was trained before stays until the new training is complete.
        [update(path) for path in TRAINED],
    log:
        FILES.log("train", "{experiment}", "{seed}").as_posix(),
    threads: lambda wildcards: experiment_of(wildcards).cpus
    resources:
        mem_mb=lambda wildcards: experiment_of(wildcards).mem_mb,
        runtime=lambda wildcards: experiment_of(wildcards).runtime,
        gpu=lambda wildcards: experiment_of(wildcards).gpus,
    params:
        data=lambda wildcards, output: PREPARED,
        run=subpath(output[0], parent=True),
        # Functions of `output` are not recorded: the run's record says what it was trained with.
        options=lambda wildcards, output: experiment_of(wildcards).train_options(
            seeds.parse(wildcards.seed)
        ),
        text=lambda wildcards, output: FILES.run(wildcards.experiment, wildcards.seed).log,
        link=lambda wildcards, output: FILES.log_link(wildcards.experiment, wildcards.seed),
    message:
        "Train {wildcards.experiment}, seed {wildcards.seed}: progress in {log}"
    shell:
        # The log is removed when the job starts, also when it starts again. So the text is
        # in the run's folder, where what the job said before a requeue stays, and the log is a link
        # to it until the run is evaluated.
        "mkdir -p {params.run:q} && log_to {params.text:q} && ln -sf {params.link:q} {log:q}"
        " && python scripts/train.py --data {params.data:q} --output {params.run:q}"
        " --threads {threads} {params.options:q} >> {params.text:q} 2>&1"
