# Load a run's weights afresh, in a job of its own, and measure them on the test set.

EVALUATED = ["predictions.csv.gz", "accuracy.csv", "evaluation.json"]


rule evaluate:
    input:
        run=rules.train.output,
        data=rules.prepare.output[0],
        script="scripts/evaluate.py",
        modules=[
            f"scripts/{name}.py"
            for name in ("cli", "data", "files", "inference", "provenance", "recipe")
        ]
        + MODEL_MODULES,
        model=lambda wildcards: STUDY.experiment(wildcards).model_file,
    output:
        [f"{RUN}/{file}" for file in EVALUATED],
    log:
        f"{RESULTS}/logs/evaluate-{{experiment}}-seed{{seed}}.log",
    threads: lambda wildcards: STUDY.experiment(wildcards).cpus
    resources:
        mem_mb=lambda wildcards, attempt: STUDY.experiment(wildcards, attempt).mem_mb,
        runtime=5,
    params:
        run=subpath(output[0], parent=True),
    message:
        "Evaluate {wildcards.experiment}, seed {wildcards.seed}"
    shell:
        # What a training starts again from goes only now: Slurm may start one again that had just
        # ended, when slurmctld was away, or its node taken for lost. The first line: as in train.
        'echo "$(date -Iseconds) on $HOSTNAME${{SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}}"'
        " > {log:q} && python {input.script} --run {params.run:q} --data {input.data:q}"
        " --threads {threads} >> {log:q} 2>&1"
        " && rm -f {params.run:q}/checkpoint.safetensors {params.run:q}/train.log"
