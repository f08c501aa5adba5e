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
                "cli",
                "data",
                "device",
                "files",
                "inference",
                "provenance",
                "recipe",
            )
        ]
        + MODEL_MODULES,
        model=lambda wildcards: STUDY.experiments[wildcards.experiment].model_file,
    output:
        [f"{RUN}/{file}" for file in TRAINED],
    log:
        f"{RESULTS}/logs/train-{{experiment}}-seed{{seed}}.log",
    threads: lambda wildcards: STUDY.experiments[wildcards.experiment].cpus
    resources:
        mem_mb=lambda wildcards: STUDY.experiments[wildcards.experiment].mem_mb,
        runtime=lambda wildcards: STUDY.experiments[wildcards.experiment].runtime,
        gpu=lambda wildcards: STUDY.experiments[wildcards.experiment].gpus,
    params:
        options=lambda wildcards: STUDY.experiments[wildcards.experiment].train_options,
        run=subpath(output[0], parent=True),
    message:
        "Train {wildcards.experiment}, seed {wildcards.seed}: progress in {log}"
    shell:
        "python {input.script} --data {input.data:q} --output {params.run:q}"
        " --seed {wildcards.seed} --threads {threads} {params.options:q} > {log:q} 2>&1"
