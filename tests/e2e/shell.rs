//! Shell tools, pipelines and the shell's own machinery.

use sandbox_tests::{Case, program, same_as_native, sh};

/// A directory with a few files of known content.
fn with_files(script: &str) -> Case {
    sh(script)
        .file("one.txt", "apple 3\nbanana 1\ncherry 2\n")
        .file("two.txt", "x\ny\nz\n")
        .file("sub/three.txt", "deep\n")
        .executable("sub/run.sh", "#!/bin/sh\necho ran \"$@\"\n")
}

fn dash(script: &str) -> Case {
    program(&["/bin/dash", "-c", script])
}

/// The column of sizes of directories and the link counts follow the filesystem, not the kernel.
fn without_directory_sizes(text: String) -> String {
    let keep = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.split_first() {
            Some((mode, rest)) if mode.starts_with('d') && rest.len() > 5 => {
                format!("{mode} {} {}", rest[1..3].join(" "), rest[4..].join(" "))
            }
            Some((&"total", _)) => String::new(),
            _ => fields.join(" "),
        }
    };
    text.lines().map(keep).collect::<Vec<_>>().join("\n")
}

same_as_native! {
    echo_prints_its_arguments => program(&["/bin/echo", "hello", "world"]);
    true_and_false_tell_by_exit_code => sh("/bin/true && ! /bin/false; echo $?; /bin/false");
    exit_codes_come_through => sh("exit 42");
    ls_lists_usr => program(&["/bin/ls", "-la", "/usr"]).normalize(without_directory_sizes);
    ls_lists_recursively => program(&["/bin/ls", "-R", "/etc/apt", "/usr/lib/apt"]);
    cat_joins_files_and_input => with_files("cat one.txt - two.txt").stdin("from stdin\n");
    cat_tells_missing_files => sh("cat /no/such/file; echo $?");
    cp_copies_trees => with_files("cp -r sub copy && cat copy/three.txt && copy/run.sh a b && ls -l copy | wc -l");
    cp_preserves_modes_and_times => with_files("cp -p sub/run.sh x && stat -c '%a %s' x && [ ! x -nt sub/run.sh ]; echo $?");
    mv_renames => with_files("mv one.txt sub/uno.txt && ls . sub && mv sub dir && ls dir");
    rm_removes => with_files("rm one.txt && rm -r sub && ls; rm one.txt; echo $?");
    mkdir_makes_and_refuses => sh("mkdir -p a/b/c && mkdir a; echo $?; rmdir a/b/c && find . | sort");
    ln_links => with_files("ln one.txt hard && ln -s sub soft && readlink soft && cat soft/three.txt && stat -c %h hard");
    touch_and_test_times => sh("touch -d '2001-02-03 04:05:06' f && date -u -r f +%FT%T && stat -c %Y f");
    chmod_changes_modes => sh("umask 022; touch f; chmod 640 f; stat -c %a f; chmod u+x,o=r f; stat -c %a f; mkdir -m 1777 d; stat -c %a d");
    umask_shapes_new_files => sh("umask 027; touch f; mkdir d; stat -c %a f d");
    find_counts_usr_share => sh("find /usr/share 2>/dev/null | wc -l").limit(180);
    find_selects => with_files("find . -type f -name '*.txt' -newermt 2000-01-01 | sort; find . -perm -100 -type f");
    tar_and_gzip_round_trip => with_files("tar czf all.tgz one.txt sub && mkdir x && tar xzf all.tgz -C x && find x | sort && cat x/one.txt && x/sub/run.sh");
    gzip_compresses => with_files("gzip -k one.txt && zcat one.txt.gz && gzip -t one.txt.gz && echo ok");
    grep_searches_recursively => sh("grep -r root /etc/passwd /etc/group | sort; grep -rc . /etc/apt | sort; grep nothing /etc/passwd; echo $?");
    sort_and_uniq => with_files("sort -k2n one.txt; printf 'b\\na\\nb\\n' | sort | uniq -c");
    sort_many_lines => sh("seq 200000 | sort -R --random-source=/bin/ls | sort -n | md5sum");
    awk_computes => with_files("awk '{ s += $2 } END { print s, NR }' one.txt; awk 'BEGIN { \"echo sub\" | getline x; print x; print \"z\" | \"cat\" }'");
    sed_edits => with_files("sed -e 's/an/AN/g' one.txt && sed -i '2d' one.txt && cat one.txt");
    xargs_runs_in_parallel => sh("seq 20 | xargs -P4 -n1 -I{} sh -c 'echo line {}' | sort");
    head_ends_a_pipeline_early => sh("yes | head -3; echo ${PIPESTATUS[@]}");
    tee_splits => sh("echo x | tee a b | cat - ; cat a b");
    dd_copies_blocks => sh("dd if=/dev/zero of=f bs=4096 count=100 2>/dev/null; stat -c %s f; dd if=f bs=1 skip=10 count=3 2>/dev/null | od -c");
    od_of_devices => sh("head -c 8 /dev/zero | od -An -tx1; echo x > /dev/null; head -c 16 /dev/urandom | wc -c; echo hi > /dev/full; echo $?");
    cmp_and_diff => with_files("diff one.txt two.txt; echo $?; cmp one.txt one.txt; echo $?");
    split_and_join_bytes => sh("seq 1000 > n; split -l 100 n p.; ls p.* | wc -l; cat p.* | cmp - n; echo $?");
    truncate_and_sparse_files => sh("truncate -s 10M f; stat -c %s f; echo end >> f; tail -c 4 f; du -k f | cut -f1 | awk '{ print ($1 < 1000) }'");
    realpath_and_readlink => with_files("ln -s one.txt l; readlink -f l | sed s,$PWD,.,; realpath --relative-to=. sub/../l");
    stat_of_well_known_files => sh("stat -c '%F %a %U %G %t %T' /dev/null /dev/zero /dev/tty /etc/passwd /bin /tmp");
    mkfifo_connects_processes => sh("mkfifo p; (echo through > p) & cat p; wait");
    long_pipeline => sh("seq 50000 | grep 7 | sed s/7/seven/ | tr a-z A-Z | sort | uniq | wc -l");
    big_data_through_pipes => sh("head -c 50000000 /dev/zero | cat | cat | wc -c");
    here_documents => sh("cat <<EOF\nhome is $((6*7))\nEOF\ncat <<'EOF'\n$literal\nEOF\ncat <<< word");
    process_substitution => sh("diff <(seq 3) <(seq 4); cat <(echo a) <(echo b)");
    command_substitution => sh("x=$(echo $(echo deep)); echo \"$x\"; y=`seq 3 | tail -1`; echo $y");
    redirections => sh("exec 3>f; echo to3 >&3; exec 3>&-; cat f; ls /nope 2>&1 >/dev/null | wc -l; { echo o; echo e >&2; } 2>e >o; cat o e");
    subshells_and_groups => sh("(cd /; pwd; x=1); echo ${x-unset}; { y=2; }; echo $y");
    background_jobs_and_wait => sh("sleep 0.1 & p=$!; (exit 7) & q=$!; wait $q; echo $?; wait $p; echo $?; jobs");
    wait_n_returns_the_first => sh("(sleep 1; exit 3) & (sleep 0.3; exit 5) & wait -n; echo $?; wait -n; echo $?");
    traps_run => sh("trap 'echo got term' TERM; trap 'echo bye' EXIT; kill -TERM $$; echo after; exit 4");
    trap_int_in_a_loop => sh("trap 'echo int; exit 9' INT; (sleep 0.2; kill -INT $$) & while :; do sleep 0.05; done");
    killed_children_are_told => sh("sleep 10 & kill -KILL $!; wait $!; echo $?; sh -c 'kill -SEGV $$'; echo $?");
    signal_of_the_program_is_128_plus => sh("kill -TERM $$");
    shell_arithmetic_and_arrays => sh("a=(1 2 3); echo ${#a[@]} $((a[0]+a[2])); declare -A m=([k]=v); echo ${m[k]}; printf '%05.2f %s\\n' 3.14159 pi");
    read_loop => sh("while IFS=: read -r a b; do echo \"$b-$a\"; done").stdin("1:one\n2:two\n");
    globs => with_files("echo *.txt; shopt -s globstar; echo **/*.txt; echo no*match");
    coprocess => sh("coproc C { while read l; do echo \"<$l>\"; done; }; echo a >&${C[1]}; read r <&${C[0]}; echo $r; kill $C_PID");
    exec_replaces_the_shell => sh("exec /bin/echo replaced");
    scripts_by_shebang => with_files("sub/run.sh one two; ./sub/run.sh");
    shebang_with_an_argument => sh("./s").executable("s", "#!/bin/sed -n 2p\nsecond line\n");
    script_without_shebang => sh("./s x").executable("s", "echo plain $1\n");
    script_as_program => program(&["./script", "a", "b"]).executable("script", "#!/bin/sh\necho $0 $*; exit 3\n");
    environment_is_carried_over => sh("env | grep -v -e ^_= -e ^SHLVL | sort").env("COLOUR", "blue");
    large_environment_and_arguments => sh("export BIG=$(head -c 100000 /dev/zero | tr '\\0' x); env | wc -c | awk '{ print ($1 > 100000) }'; /bin/echo $(seq 20000) | md5sum");
    argument_list_too_long => sh("x=$(head -c 200000 /dev/zero | tr '\\0' x); /bin/echo \"$x\" | wc -c; echo $?").ignore_stderr();
    time_limits_of_timeout => sh("timeout 0.2 sleep 5; echo $?; timeout 5 true; echo $?; timeout -s KILL 0.2 sleep 5; echo $?");
    nice_and_nohup => sh("nice -n 5 nice; nohup echo x 2>/dev/null");
    dash_pipelines => dash("seq 10 | while read n; do echo $((n * n)); done | tail -2");
    dash_traps_and_jobs => dash("trap 'echo usr1' USR1; kill -USR1 $$; sleep 0.1 & wait; echo done; trap 'echo exit' 0");
    dash_here_document => dash("cat <<EOF\n$((1 + 2))\nEOF");
    ulimit_is_kept => sh("ulimit -n 100; ulimit -n; ulimit -c 0; ulimit -c; ulimit -Sn 50; ulimit -Sn; ulimit -Hn");
    closed_standard_streams => sh("exec <&- ; read x; echo $?; exec 2>&-; echo out");
    sleep_and_date_arithmetic => sh("s=$(date +%s%N); sleep 0.2; e=$(date +%s%N); d=$(( (e - s) / 1000000 )); [ $d -ge 200 -a $d -lt 2000 ] && echo in time");
}
