package store

import (
	"context"
	"errors"
	"strings"
)

func isPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

func openPostgres(ctx context.Context, address string, create bool) (database, error) {
	return nil, errors.New("not yet")
}
