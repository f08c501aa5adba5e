# Compare the runs: tables, figures, the page. Local: it reads small files.

FIGURES = ["accuracy", "learning-curves", "confusion", "class-accuracy", "calibration", "cost"]


rule report:
    input:
        # Made after all other files of a run, which change only with them.
        runs=[
            f"{RESULTS}/runs/{experiment}/seed{seed}/{file}"
            for experiment, seed in STUDY.runs
            for file in EVALUATED
        ],
        data=rules.prepare.output[0],
        script="scripts/report.py",
        modules=[
            f"scripts/{name}.py"
            for name in (
                "cli",
                "figures",
                "files",
                "page",
                "runs",
                "tables",
                "uncertainty",
                "verdict",
            )
        ],
        templates=[f"workflow/report/{name}" for name in ("page.html.j2", "page.css.j2", "page.js")],
    output:
        f"{RESULTS}/report.csv",
        f"{RESULTS}/summary.csv",
        f"{RESULTS}/comparisons.csv",
        f"{RESULTS}/report.html",
        [
            report(
                f"{RESULTS}/figures/{name}.svg",
                caption=f"../report/{name}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name in FIGURES
        ],
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    params:
        results=subpath(output[0], parent=True),
        runs=STUDY.report_options,
        # A function of `output` is not recorded: another command line does not report anew.
        command=lambda wildcards, output: shlex.join(["snakemake", *sys.argv[1:]]),
    message:
        "Report on {params.results}"
    shell:
        "python {input.script} --results {params.results:q} --data {input.data:q}"
        " --command={params.command:q} --runs {params.runs:q} > {log:q} 2>&1"
