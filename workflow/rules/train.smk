# Train one experiment with one seed: one job. Everything about it comes from its config entry.

TRAINED = ["model.safetensors", "history.csv", "run.json"]

# Of the models, a run depends on its own alone: a new model retrains nothing.
MODEL_MODULES = [
    "scripts/models/__init__.py",
    "scripts/models/layers.py",
    "scripts/signatures.py",
]


rule train:
    input:
        data=rules.prepare.output[0],
        script="scripts/train.py",
        modules=[
            f"scripts/{name}.py"
            for name in (
                "allocator",
                "checkpoint",
                "cli",
                "data",
                "device",
                "files",
                "inference",
                "lease",
                "light_dynamo",
                "progress",
                "provenance",
                "recipe",
                "run_folder",
            )
        ]
        + MODEL_MODULES,
        model=lambda wildcards: STUDY.experiment(wildcards).model_file,
    output:
        [f"{RUN}/{file}" for file in TRAINED],
    log:
        f"{RESULTS}/logs/train-{{experiment}}-seed{{seed}}.log",
    threads: lambda wildcards: STUDY.experiment(wildcards).cpus
    resources:
        # A job that was killed for want of memory or time is submitted again with more of both.
        mem_mb=lambda wildcards, attempt: STUDY.experiment(wildcards, attempt).mem_mb,
        runtime=lambda wildcards, attempt: STUDY.experiment(wildcards, attempt).runtime,
        gpu=lambda wildcards: STUDY.experiment(wildcards).gpus,
    params:
        options=lambda wildcards: STUDY.experiment(wildcards).train_options,
        run=subpath(output[0], parent=True),
    message:
        "Train {wildcards.experiment}, seed {wildcards.seed}: progress in {log}"
    shell:
        # Snakemake removes the log when the job starts, also when it starts again. What it said
        # before survives under a second name in the run's folder until the run is evaluated.
        # Something must stand in it at once: where a job dies with an empty log, Snakemake does not
        # show Slurm's own either, which says why.
        "mkdir -p {params.run:q} && echo "
        '"$(date -Iseconds) on $HOSTNAME${{SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}}"'
        " >> {params.run:q}/train.log"
        " && ln -f {params.run:q}/train.log {log:q}"
        " && python {input.script} --data {input.data:q} --output {params.run:q}"
        " --seed {wildcards.seed} --threads {threads} {params.options:q} >> {log:q} 2>&1"
