# Compare the runs: tables, figures, the page. Local: it reads small files.

TEMPLATES = [f"workflow/report/{name}" for name in ("page.html.j2", "page.css.j2", "page.js")]


rule report:
    input:
        rerun_if(OLD_REPORT),
        # Written after all other files of a run, which change only with them.
        runs=outputs_of("evaluate", [run for run in STUDY.evaluated_runs if not searched(run)]),
        chosen=lambda wildcards: outputs_of(
            "evaluate", filter(searched, study_with_search_results().evaluated_runs)
        ),
        record=PREPARED_RECORD,
        adoptions=[FILES.adoptions.as_posix()] if FILES.adoptions.exists() else [],
        data=ancient(PREPARED),
        search=FILES.table(SEARCH_TABLE).as_posix() if STUDY.searches else [],
    output:
        [FILES.table(name).as_posix() for name in REPORT_TABLES],
        FILES.page.as_posix(),
        [
            report(
                FILES.figure(name).as_posix(),
                caption=f"../report/{name}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name in [*FIGURES, *(["search"] if STUDY.searches else [])]
        ],
    log:
        FILES.log("report").as_posix(),
    localrule: True
    params:
        code=code_of("scripts/report.py"),
        templates=digest_of(*TEMPLATES),
        results=subpath(output[0], parent=True),
        runs=lambda wildcards: study_with_search_results().report_options,
        metric=STUDY.metric_options,
        search=lambda wildcards, input: ["--search", input.search] if input.search else [],
        # A function of `output` is not recorded: another command line does not report again.
        command=lambda wildcards, output: stored.command(STUDY, sys.argv[1:]),
    message:
        "Report on {params.results}"
    shell:
        "python scripts/report.py --results {params.results:q} --data {input.data:q}"
        " --command={params.command:q} --runs {params.runs:q} {params.metric:q}"
        " {params.search:q} > {log:q} 2>&1"
