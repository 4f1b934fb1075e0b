// The functions of WASI preview 1 and the types of their parameters: i is an i32, l an i64.
// All but proc_exit return an error number.

#define FUNCTIONS(F) \
	F(args_get, "ii") F(args_sizes_get, "ii") F(environ_get, "ii") F(environ_sizes_get, "ii") \
	F(clock_res_get, "ii") F(clock_time_get, "ili") \
	F(fd_advise, "illi") F(fd_allocate, "ill") F(fd_close, "i") F(fd_datasync, "i") \
	F(fd_fdstat_get, "ii") F(fd_fdstat_set_flags, "ii") F(fd_fdstat_set_rights, "ill") \
	F(fd_filestat_get, "ii") F(fd_filestat_set_size, "il") F(fd_filestat_set_times, "illi") \
	F(fd_pread, "iiili") F(fd_prestat_get, "ii") F(fd_prestat_dir_name, "iii") F(fd_pwrite, "iiili") \
	F(fd_read, "iiii") F(fd_readdir, "iiili") F(fd_renumber, "ii") F(fd_seek, "ilii") F(fd_sync, "i") \
	F(fd_tell, "ii") F(fd_write, "iiii") \
	F(path_create_directory, "iii") F(path_filestat_get, "iiiii") F(path_filestat_set_times, "iiiilli") \
	F(path_link, "iiiiiii") F(path_open, "iiiiillii") F(path_readlink, "iiiiii") \
	F(path_remove_directory, "iii") F(path_rename, "iiiiii") F(path_symlink, "iiiii") F(path_unlink_file, "iii") \
	F(poll_oneoff, "iiii") F(proc_exit, "i") F(proc_raise, "i") F(sched_yield, "") F(random_get, "ii") \
	F(sock_accept, "iii") F(sock_recv, "iiiiii") F(sock_send, "iiiii") F(sock_shutdown, "ii")
