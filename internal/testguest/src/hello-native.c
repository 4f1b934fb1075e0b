#include <stdio.h>

int main(void) {
	puts("hello from native C");
	return 0;
}
