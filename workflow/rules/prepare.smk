# Check the raw files and make one file of tensors. Local: it takes seconds, once per data set.


rule prepare:
    input:
        FILES.listing(STUDY.dataset).as_posix(),
    output:
        PREPARED,
    log:
        FILES.log("prepare", STUDY.dataset).as_posix(),
    localrule: True
    params:
        code=code_of("scripts/prepare.py"),
        dataset=STUDY.dataset,
        datasets_file=STUDY.datasets_file,
        entry=STUDY.dataset_entry,
    message:
        "Prepare {params.dataset}"
    shell:
        "python scripts/prepare.py --dataset {params.dataset:q}"
        " --datasets-file {params.datasets_file:q} --files {input:q} --output {output:q}"
        " > {log:q} 2>&1"
