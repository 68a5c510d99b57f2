#!/bin/bash
# Four ranks on the nodes of `hostfile`, which meet through the MPI that mpirun belongs to.
#
#   ./mpirun.sh      # in a folder that all nodes see, with the data and hostfile
#
# mpirun reaches the nodes by ssh. When a rank dies, mpirun ends all, and they are started
# again, from the last checkpoint.
for try in {1..10}; do
	mpirun --hostfile hostfile --bind-to none \
		carousel-dl train classify --data reviews.csv --out run --resume
	code=$?
	# 2: settings or data that cannot be right. 130: Ctrl-C.
	case "$code" in 0 | 2 | 130) break ;; esac
	echo "try $try ended with exit code $code" >&2
done
exit "$code"
