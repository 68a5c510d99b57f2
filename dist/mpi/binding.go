//go:build dl && linux

package mpi

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/carousel-ml/carousel/dist"
)

// Binding returns one line for the user where the launcher gave this process a
// single core although there are more than one for each of its ranks, as Open
// MPI's does for two ranks; otherwise "".
func Binding(p *dist.Place) string {
	var own, machine unix.CPUSet
	// The launcher itself is not bound.
	if unix.SchedGetaffinity(0, &own) != nil || unix.SchedGetaffinity(os.Getppid(), &machine) != nil {
		return ""
	}
	return binding(own.Count(), machine.Count(), p, launcher(os.Getenv))
}

func binding(own, machine int, p *dist.Place, f family) string {
	ranks := max(p.LocalSize, 1)
	if own > 1 || machine < 2*ranks {
		return ""
	}
	advice := map[family]string{openMPI: "`mpirun --bind-to none` lifts this", mpich: "`mpirun -bind-to none` lifts this", anyMPI: "ask the launcher for more"}[f]
	return fmt.Sprintf("%s bound rank %d to 1 core; the machine has %d for each rank here: %s", p.Launcher, p.Rank, machine/ranks, advice)
}
