# Gather the runs into the report's tables. Local: it reads small files.


rule report:
    input:
        runs=[
            f"{RESULTS}/runs/{experiment}/seed{seed}/{file}"
            for experiment, seed in STUDY.runs
            for file in ("run.json", "evaluation.json", "accuracy.csv")
        ],
        script="scripts/report.py",
        modules=["scripts/cli.py", "scripts/files.py"],
    output:
        f"{RESULTS}/report.csv",
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    params:
        results=subpath(output[0], parent=True),
        runs=STUDY.report_options,
    message:
        "Report on {output}"
    shell:
        "python {input.script} --results {params.results:q} --output {output:q}"
        " --runs {params.runs:q} > {log:q} 2>&1"
