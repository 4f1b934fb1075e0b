package executor_test

var waitScenes = []scene{}
