// Makes a filter with libseccomp, for comparison.
//
//   libseccomp ARCH DEFAULT_ACTION FILE <<INPUT
//
// Input lines are "name SYSCALL", for which it prints the syscall's number, and
// "rule SYSCALL ACTION COUNT (INDEX OPERATOR DATUM_A DATUM_B)...". An action is the
// return value of a filter. A rule for an unknown syscall is ignored. The filter is
// written to FILE.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	exit(1);
}

static enum scmp_compare operator_of(const char *name)
{
	static const char *names[] = {"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"};
	static const enum scmp_compare ops[] = {SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ,
						SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ};
	for (int i = 0; i < 7; i++)
		if (strcmp(name, names[i]) == 0)
			return ops[i];
	die(name, -EINVAL);
	return 0;
}

int main(int argc, char **argv)
{
	char kind[16], name[64];
	int rc;

	if (argc != 4)
		die("arguments", -EINVAL);
	uint32_t arch = seccomp_arch_resolve_name(argv[1]);
	scmp_filter_ctx ctx = seccomp_init(strtoul(argv[2], NULL, 10));
	if (ctx == NULL)
		die("seccomp_init", -EINVAL);
	if (arch != seccomp_arch_native()) {
		if ((rc = seccomp_arch_add(ctx, arch)) < 0)
			die("seccomp_arch_add", rc);
		if ((rc = seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE)) < 0)
			die("seccomp_arch_remove", rc);
	}
	while (scanf("%15s %63s", kind, name) == 2) {
		int nr = seccomp_syscall_resolve_name_arch(arch, name);
		if (strcmp(kind, "name") == 0) {
			printf("%d\n", nr);
			continue;
		}
		uint32_t action;
		unsigned int count;
		struct scmp_arg_cmp args[6];
		if (scanf("%" SCNu32 " %u", &action, &count) != 2 || count > 6)
			die("rule", -EINVAL);
		for (unsigned int i = 0; i < count; i++) {
			char op[16];
			if (scanf("%u %15s %" SCNu64 " %" SCNu64, &args[i].arg, op, &args[i].datum_a, &args[i].datum_b) != 4)
				die("argument", -EINVAL);
			args[i].op = operator_of(op);
		}
		if (nr < 0)
			continue;
		// seccomp_rule_add_array expects numbers of the native architecture.
		if ((rc = seccomp_rule_add_array(ctx, action, seccomp_syscall_resolve_name(name), count, args)) < 0 && rc != -EEXIST)
			die(name, rc);
	}
	int fd = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		die(argv[3], -errno);
	if ((rc = seccomp_export_bpf(ctx, fd)) < 0)
		die("seccomp_export_bpf", rc);
	return 0;
}
