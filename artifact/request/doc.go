// Package request reads what a pod asks for by annotations: objects of S3 stores as files of its containers, and files of
// them that become objects.
//
//	wasm.shim/artifact.table: s3://bucket/tables/big.parquet -> /in/table.parquet
//	wasm.shim/artifact.result: /out/result.csv -> s3://bucket/results/1.csv
//
// The author of a pod chooses every byte of an annotation. The package checks all of it and never opens, mounts or
// requests anything.
package request
