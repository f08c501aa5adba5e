# Check the images and make one file of tensors. Local, unless the config says what a Slurm job is to
# ask for: it takes seconds or minutes, once per data set.


rule prepare:
    input:
        rerun_if(OUTDATED.prepare),
        listing=FILES.listing(STUDY.dataset).as_posix(),
    output:
        data=PREPARED,
        record=PREPARED_RECORD,
    log:
        FILES.log("prepare", STUDY.dataset).as_posix(),
    localrule: not STUDY.prepare
    threads: STUDY.prepare.get("cpus", 1)
    resources:
        mem_mb=STUDY.prepare.get("mem_mb", 0),
        runtime=STUDY.prepare.get("runtime", 0),
    params:
        code=code_of("scripts/prepare.py", READER),
        dataset=STUDY.dataset,
        content=CONTENT,
        datasets_file=lambda wildcards, output: STUDY.datasets_file,
    message:
        "Prepare {params.dataset}"
    shell:
        "python scripts/prepare.py --dataset {params.dataset:q}"
        " --datasets-file {params.datasets_file:q} --files {input.listing:q}"
        " --output {output.data:q}"
        + (" --threads {threads}" if STUDY.prepare else "")
        + " 2>&1 | tee {log:q}"
