# Check the raw files and make one file of tensors. Local: it takes seconds, once a data set.


rule prepare:
    input:
        files=rules.download.output,
        script="scripts/prepare.py",
        modules=[f"scripts/{name}.py" for name in ("checked_yaml", "cli", "datasets", "files")],
    output:
        f"{RESULTS}/data/{STUDY.dataset}.safetensors",
    log:
        f"{RESULTS}/logs/prepare-{STUDY.dataset}.log",
    localrule: True
    params:
        dataset=STUDY.dataset,
        datasets_file=STUDY.datasets_file,
        entry=STUDY.dataset_entry,
    message:
        "Prepare {params.dataset}"
    shell:
        "python {input.script} --dataset {params.dataset:q}"
        " --datasets-file {params.datasets_file:q} --files {input.files:q} --output {output:q}"
        " > {log:q} 2>&1"
