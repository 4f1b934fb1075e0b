#!/usr/bin/env bash
# Runs the core of the integration tests on unified cgroup v2, in the User-Mode Linux guest of run.sh, with
# one containerd. The guest has no network and one slow processor, so everything that needs a build is
# built here first.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
cd "$repo"

containerd=2.2
# The tests that make up the core: hello, exit codes, limits, OOM, kill, pause, exec,
# statistics, launches beside an intruder; each checks for leaks itself.
core='^(TestRunHello|TestRunExitCodes|TestRunTraps|TestRunNative|TestGrowingGuest|TestOutOfMemoryKill|TestCPUQuota|TestPidsLimit|TestMetrics|TestUpdate|TestKill|TestPause|TestExec|TestLaunchesBesideAnIntruder)'
# Of those about Argo's executor, whose names begin like the tests of exec, two are left out: one strikes a process at a
# random instant of its life, which takes more tries than -test.short makes, and one knows how much memory v1 counts.
left_out='^TestExecutor(WhoseCopyIsStruck|WithLittleMemory)$'
# Of the launch tests, those about access from other processes in the container's pid namespace. The guest
# has no Landlock, so they test the other barriers.
intruders='^(TestLaunchingChild|TestChildHasNothing|TestStoppedChild|TestJoin)'

mkdir -p .cache/cgroup2
hack/tools/build.sh "containerd-$containerd" runc >/dev/null
go run ./hack/cgroup2/guests
CGO_ENABLED=0 go build -o .cache/cgroup2/programs/ ./sandbox/testdata/intruder
CGO_ENABLED=0 go test -c -o .cache/cgroup2/test-sandbox ./sandbox
CGO_ENABLED=0 go test -c -o .cache/cgroup2/test ./test
CGO_ENABLED=0 go test -c -tags systemd -o .cache/cgroup2/test-systemd ./test
CGO_ENABLED=0 go test -c -tags systemd -o .cache/cgroup2/test-incluster ./install/incluster

cd test
"$here/run.sh" --timeout 1500 --rw "$repo/.cache" -- \
	env HOME=/root TEST_PROGRAMS="$repo/.cache/cgroup2/programs" "$repo/.cache/cgroup2/test" -test.v -test.short -test.timeout 20m -test.skip "$left_out" -test.run "$core/^containerd-$containerd\$"

echo "testing that a child is out of reach until it executes the worker"
cd ../sandbox
"$here/run.sh" --timeout 600 --rw "$repo/.cache" -- \
	env HOME=/root TEST_PROGRAMS="$repo/.cache/cgroup2/programs" "$repo/.cache/cgroup2/test-sandbox" -test.v -test.short -test.timeout 8m -test.run "$intruders"
cd ../test

echo "testing the systemd driver, with systemd as the guest's process 1"
"$here/run.sh" --systemd --timeout 600 --rw "$repo/.cache" -- \
	env HOME=/root "$repo/.cache/cgroup2/test-systemd" -test.v -test.timeout 8m -test.run '^TestSystemd'

echo "testing that the node installer restarts units of systemd"
"$here/run.sh" --systemd --timeout 300 --rw "$repo/.cache" -- \
	env HOME=/root "$repo/.cache/cgroup2/test-incluster" -test.v -test.timeout 4m -test.run '^TestSystemd'
