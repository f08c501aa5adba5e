# Choose the best point of each search by its metric on the validation images. A checkpoint: what is
# evaluated on the test set is known only then. Local: it reads small files, unless runs are of an
# earlier version, which did not keep what the metric needs.


checkpoint choose:
    input:
        # Written after all other files of a run, which change only with them.
        runs=outputs_of("train", [run for run in STUDY.runs if STUDY.experiments[run[0]].search]),
        record=PREPARED_RECORD,  # as in reproduce.smk
        data=ancient(PREPARED),
    output:
        FILES.table(SEARCH_TABLE).as_posix(),
    log:
        FILES.log("choose").as_posix(),
    localrule: True
    params:
        code=code_of("scripts/choose.py"),
        results=subpath(output[0], parent=True),
        searches=json.dumps(STUDY.search_options),
        metric=STUDY.metric_options,
    message:
        "Choose the best point of each search"
    shell:
        "python scripts/choose.py --results {params.results:q} --searches {params.searches:q}"
        " --data {input.data:q} {params.metric:q} > {log:q} 2>&1"
