# Make a run again from its record, for `make reproduce`: nothing asks for it but that. It needs only
# what is stored, and whatever the code and the config are now.

REPRODUCING = any(
    Path(str(target)).is_relative_to(FILES.reproductions)
    for target in (workflow.dag_settings.targets if workflow.dag_settings else ())
)


rule reproduce:
    input:
        unlocked,
    output:
        FILES.reproduction("{experiment}", "{seed}").as_posix(),
    log:
        FILES.log("reproduce", "{experiment}", "{seed}").as_posix(),
    threads: lambda wildcards: experiment_of(wildcards).cpus
    resources:
        mem_mb=lambda wildcards: experiment_of(wildcards).mem_mb,
        runtime=lambda wildcards: experiment_of(wildcards).runtime,
        gpu=lambda wildcards: experiment_of(wildcards).gpus,
    params:
        data=lambda wildcards, output: PREPARED,
        run=lambda wildcards, output: FILES.run(wildcards.experiment, wildcards.seed).folder,
    message:
        "Repeat {wildcards.experiment}, seed {wildcards.seed}: progress in {log}"
    shell:
        "log_to {log:q} && python scripts/repeat.py --run {params.run:q} --data {params.data:q}"
        " --output {output:q} >> {log:q} 2>&1"
