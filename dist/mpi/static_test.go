//go:build !dl || !linux

package mpi

import (
	"context"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/dist"
)

func TestStaticBinary(t *testing.T) {
	_, err := Connect(context.Background(), &dist.Place{Size: 2, MPI: true})
	if err == nil || !strings.Contains(err.Error(), "use carousel-dl") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}
