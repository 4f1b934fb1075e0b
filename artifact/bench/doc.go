// Package bench measures how artifacts are read, beside a plain download from the same server in the same run:
//
//	go test ./artifact/bench -run '^$' -bench . -benchtime 1x
package bench
