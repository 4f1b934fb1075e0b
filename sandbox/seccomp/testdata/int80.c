// Calls getpid through the i386 ABI and fails if the result is wrong.
#include <unistd.h>

int main(void)
{
	int pid;

	__asm__ volatile("int $0x80" : "=a"(pid) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	return pid != getpid();
}
