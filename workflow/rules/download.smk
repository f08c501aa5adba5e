# Download the raw files of the data set into data_dir. Local: compute nodes have no internet.


rule download:
    input:
        unlocked,
        rerun_if(OUTDATED.download),
    output:
        # The raw files themselves are not outputs: Snakemake deletes outputs, and data_dir may be
        # shared with others.
        FILES.listing(STUDY.dataset).as_posix(),
    log:
        FILES.log("download", STUDY.dataset).as_posix(),
    localrule: True
    params:
        code=code_of("scripts/download.py"),
        dataset=STUDY.dataset,
        # Not used, but recorded: a changed entry runs this again, another data set's does not.
        content=CONTENT,
        # Snakemake does not record a function of `output`: the digests say what the data is, and
        # data that has moved, or has other mirrors, runs nothing again.
        datasets_file=lambda wildcards, output: STUDY.datasets_file,
        data_dir=lambda wildcards, output: STUDY.data_dir,
        mirrors=lambda wildcards, output: STUDY.mirrors,
    message:
        "Download {params.dataset} into {params.data_dir}"
    shell:
        "python scripts/download.py --dataset {params.dataset:q}"
        " --datasets-file {params.datasets_file:q} --data-dir {params.data_dir:q}"
        " --output {output:q} --mirrors {params.mirrors:q} 2>&1 | tee {log:q}"
