# Make a run again from its record (make reproduce), or only its first steps, with the current code
# (make adopt). Nothing asks for it but these commands. What is stored is enough: whether it is out
# of date does not matter.


rule reproduce:
    input:
        unlocked,
        # Where the data is made again, Snakemake would not see that this is to run by an `ancient`
        # input alone.
        record=PREPARED_RECORD,
        data=ancient(PREPARED),
    output:
        FILES.reproduction("{experiment}", "{seed}").as_posix(),
    log:
        FILES.log("reproduce", "{experiment}", "{seed}").as_posix(),
    threads: lambda wildcards: stored_experiment(wildcards).cpus
    resources:
        mem_mb=lambda wildcards: stored_experiment(wildcards).mem_mb,
        runtime=lambda wildcards: stored_experiment(wildcards).runtime,
        gpu=lambda wildcards: stored_experiment(wildcards).gpus,
    params:
        command=["repeat.py"],
        run=lambda wildcards, output: FILES.run(wildcards.experiment, wildcards.seed).folder,
    message:
        "Repeat {wildcards.experiment}, seed {wildcards.seed}: progress in {log}"
    shell:
        "log_to {log:q} && python scripts/{params.command} --run {params.run:q} --data {input.data:q}"
        " --output {output:q} >> {log:q} 2>&1"


use rule reproduce as replay with:
    output:
        FILES.replay("{experiment}", "{seed}").as_posix(),
    log:
        FILES.log("replay", "{experiment}", "{seed}").as_posix(),
    params:
        command=["replay.py"],
        run=lambda wildcards, output: FILES.run(wildcards.experiment, wildcards.seed).folder,
    message:
        "Replay {wildcards.experiment}, seed {wildcards.seed}: progress in {log}"


use rule replay as replay_whole with:
    output:
        FILES.replay("{experiment}", "{seed}", whole=True).as_posix(),
    params:
        command=["replay.py", "--all"],
        run=lambda wildcards, output: FILES.run(wildcards.experiment, wildcards.seed).folder,
