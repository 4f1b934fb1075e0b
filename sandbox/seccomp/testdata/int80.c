// Asks for its process id through the i386 ABI and fails if that is not it.
#include <unistd.h>

int main(void)
{
	int pid;

	__asm__ volatile("int $0x80" : "=a"(pid) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	return pid != getpid();
}
