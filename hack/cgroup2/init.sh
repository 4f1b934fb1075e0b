#!/bin/bash
# First process of the guest. Makes the read-only root usable, then runs job.sh, itself or
# through systemd. run.sh starts it and puts its options into $EXCHANGE/job.

set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# show DIR MODE mounts a folder of the host in its own place.
show() {
	mkdir -p "$1"
	mount -t hostfs -o "$2,$1" host "$1"
}

filesystems() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
	mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm
	mount -t mqueue mqueue /dev/mqueue
	ln -sfn /proc/self/fd /dev/fd
	ln -sfn fd/0 /dev/stdin
	ln -sfn fd/1 /dev/stdout
	ln -sfn fd/2 /dev/stderr
	ln -sfn pts/ptmx /dev/ptmx

	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/exchange /run/lock
	mount -t hostfs -o "$EXCHANGE" host /run/exchange
	mount -t tmpfs -o mode=755 tmpfs /var/lib
	mount -t tmpfs -o mode=1777 tmpfs /var/tmp
	mount -t tmpfs -o mode=1777 tmpfs /tmp
}

# hidden DIR reports whether one of the tmpfs above covers DIR.
hidden() {
	case $1/ in
	/run/* | /tmp/* | /var/lib/* | /var/tmp/* | /var/run/*) true ;;
	*) false ;;
	esac
}

# The kernel looks for modules in a distribution's folder; this sets the path of ours.
modules() {
	mkdir -p /run/kernel/lib
	ln -s /usr/lib/uml/modules /run/kernel/lib/modules
	printf '#!/bin/sh\nexec /sbin/modprobe -d /run/kernel "$@"\n' >/run/kernel/modprobe
	chmod +x /run/kernel/modprobe
	echo /run/kernel/modprobe >/proc/sys/kernel/modprobe
	/run/kernel/modprobe -a overlay fuse
}

# A hierarchy in the state that systemd leaves: every controller is available below the root.
controllers() {
	local name
	for name in $(</sys/fs/cgroup/cgroup.controllers); do
		echo "+$name"
	done >/sys/fs/cgroup/cgroup.subtree_control
}

# drop_in UNIT writes its standard input into a drop-in of UNIT.
drop_in() {
	mkdir -p "/run/systemd/system/$1.d"
	cat >"/run/systemd/system/$1.d/guest.conf"
}

# systemd starts the job and the system bus, and nothing that the host has enabled.
units() {
	mkdir -p /run/systemd/system /run/systemd/system.conf.d
	cat >/run/systemd/system.conf.d/guest.conf <<-'CONF'
		[Manager]
		DefaultCPUAccounting=yes
		DefaultIOAccounting=yes
		DefaultMemoryAccounting=yes
		DefaultTasksAccounting=yes
		DefaultStandardOutput=null
	CONF
	cat >/run/systemd/system/job.service <<-'UNIT'
		[Unit]
		Description=The command given to run.sh
		Wants=dbus.socket
		After=dbus.socket
		DefaultDependencies=no

		[Service]
		ExecStart=/run/exchange/job.sh
		Delegate=yes
		StandardOutput=tty
		TTYPath=/dev/console
		StandardInput=null
		TasksMax=infinity
	UNIT
	cat >/run/systemd/system/job.target <<-'UNIT'
		[Unit]
		Requires=job.service
		DefaultDependencies=no
		AllowIsolate=yes
	UNIT
	local unit
	for unit in dbus.socket dbus.service; do
		drop_in $unit <<-'UNIT'
			[Unit]
			DefaultDependencies=no
		UNIT
	done
}

filesystems
init=plain ro=() rw=()
# shellcheck source=/dev/null
. /run/exchange/job
for dir in "${ro[@]}"; do
	if hidden "$dir"; then
		show "$dir" ro
	fi
done
for dir in "${rw[@]}"; do
	show "$dir" rw
done
modules
ip link set lo up
hostname cgroup2

if [[ $init == systemd ]]; then
	units
	export SYSTEMD_UNIT_PATH=/run/systemd/system:/lib/systemd/system
	exec /lib/systemd/systemd --system --unit=job.target
fi
controllers
# Not exec: the first process stays and reaps the command's orphans.
/run/exchange/job.sh &
wait $!
