// Package mpi is the transport of ranks that an MPI's launcher started (mpirun,
// mpiexec, srun): bytes travel by that MPI's own library, over whatever network
// it was built for. The library is loaded at run time, without cgo, so one
// binary serves Open MPI 4 and 5, MPICH, Intel MPI, other MPIs with MPICH's ABI,
// and every MPI with the standard ABI of MPI 5.0.
//
// A binary that can load libraries is linked to the C library. The package is
// therefore whole only under the build tag dl, on Linux; without it Connect
// returns an error that says so, and the binary stays static.
//
// Only point-to-point messages of bytes are used: sums are dist's, in one fixed
// order that no MPI's Allreduce promises.
//
// Environment: CAROUSEL_MPI is the path of the MPI library to load, for when the
// launcher's own is not found.
package mpi

import (
	"context"

	"github.com/carousel-ml/carousel/dist"
)

// Both builds have these: what calls them compiles with one if it does with the other.
var (
	_ func(context.Context, *dist.Place) (dist.Transport, error) = Connect
	_ func(*dist.Place) string                                   = Binding
)
