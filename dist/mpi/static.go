//go:build !dl || !linux

package mpi

import (
	"context"
	"errors"

	"github.com/carousel-ml/carousel/dist"
)

// Connect fails: this build cannot load an MPI library.
func Connect(context.Context, *dist.Place) (dist.Transport, error) {
	return nil, errors.New("this binary is static and cannot load MPI: use carousel-dl (make build-dl), or `carousel launch`")
}

// Binding returns "", which is nothing to tell the user.
func Binding(*dist.Place) string { return "" }
