package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/carousel-ml/carousel/data"
)

// Times for a server that does not answer.
const (
	connectTime = 10 * time.Second
	aliveTime   = 15 * time.Second // between looks whether its machine is still there
	againTime   = 15 * time.Second // that a transaction is tried again for, such as while the server restarts
)

type postgresServer struct {
	config *pgx.ConnConfig
	name   string // for messages: without the password

	mu   sync.Mutex
	idle []*pgx.Conn
}

var postgresDialect = strings.NewReplacer("{int}", "BIGINT", "{blob}", "BYTEA", "{compact}", "")

func isPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

func openPostgres(ctx context.Context, address string, mayCreate bool) (database, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, &data.InputError{Problem: "the study's address is not understood: " + reason(err), Fix: "write it as postgres://user:password@host:5432/database"}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTime
	}
	config.DialFunc = (&net.Dialer{KeepAlive: aliveTime}).DialContext
	s := &postgresServer{config: config, name: fmt.Sprintf("postgres://%s/%s", net.JoinHostPort(config.Host, fmt.Sprint(config.Port)), config.Database)}
	c, err := s.take(ctx)
	if err != nil {
		return nil, s.explain(err)
	}
	s.give(c)
	if err := s.do(ctx, false, func(t transaction) error { return s.prepare(t, mayCreate) }); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// prepare makes the tables, or looks at those that are there.
func (s *postgresServer) prepare(t transaction, mayCreate bool) error {
	// Workers that begin together wait for each other here; the number is an arbitrary one.
	if _, err := t.exec(`SELECT pg_advisory_xact_lock(7236837416524)`); err != nil {
		return err
	}
	there, schema := false, ""
	err := t.query(`SELECT to_regclass('tune_study') IS NOT NULL, COALESCE(current_schema(), '')`, nil, []any{&there, &schema}, once)
	switch {
	case err != nil:
		return err
	case there:
		return checkFormat(t, s.name)
	case !mayCreate:
		return noStudy(s.name, "it holds no study", "look at the database's name, and at search_path")
	}
	if path := s.config.RuntimeParams["search_path"]; schema == "" && path != "" {
		if _, err := t.exec(`CREATE SCHEMA ` + pgx.Identifier{path}.Sanitize()); err != nil {
			return err
		}
	}
	return create(t, postgresDialect)
}

func (s *postgresServer) now() string {
	return `CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)`
}

// shrink leaves it to the server, which uses the room of deleted rows again.
func (s *postgresServer) shrink(context.Context) error { return nil }

// take returns a connection that no other goroutine uses.
func (s *postgresServer) take(ctx context.Context) (*pgx.Conn, error) {
	s.mu.Lock()
	for len(s.idle) > 0 {
		c := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if !c.IsClosed() {
			s.mu.Unlock()
			return c, nil
		}
	}
	s.mu.Unlock()
	c, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return nil, err
	}
	// A worker's machine that vanishes must not keep its locks.
	if _, err := c.Exec(ctx, `SET idle_in_transaction_session_timeout = '30s'`); err != nil {
		c.Close(ctx)
		return nil, err
	}
	return c, nil
}

func (s *postgresServer) give(c *pgx.Conn) {
	if c.IsClosed() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, c)
}

func (s *postgresServer) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		c.Close(context.Background()) // the server rolls back what is open, if anything
	}
	s.idle = nil
	return nil
}

// do tries a transaction again whose connection was lost, even if it is not known whether it was committed: then
// it finds a piece taken or finished, as if by another worker, and values that are queued are queued twice.
func (s *postgresServer) do(ctx context.Context, readOnly bool, work func(transaction) error) error {
	end := time.Now().Add(againTime)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		again, err := s.try(ctx, readOnly, work)
		if err == nil || !again || time.Now().Add(wait).After(end) {
			return s.explain(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// try reports whether it is worth trying again.
func (s *postgresServer) try(ctx context.Context, readOnly bool, work func(transaction) error) (again bool, err error) {
	c, err := s.take(ctx)
	if err != nil {
		return ctx.Err() == nil && isAway(err), err
	}
	defer s.give(c)
	options := pgx.TxOptions{} // row by row the last committed state: rows are locked before they are looked at
	if readOnly {
		options = pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead} // one state throughout
	}
	err = pgx.BeginTxFunc(ctx, c, options, func(tx pgx.Tx) error { return work(postgresTransaction{ctx, tx}) })
	return err != nil && ctx.Err() == nil && (c.IsClosed() || isAway(err)), err
}

// isAway reports whether an error is that of a server that is not there at the moment.
func isAway(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		var c *pgconn.ConnectError
		return errors.As(err, &c)
	}
	// Connections, the server's coming and going, and transactions that stood in each other's way.
	return strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "57P0") || strings.HasPrefix(e.Code, "40") || e.Code == "53300"
}

// explain makes a message for people of the server's.
func (s *postgresServer) explain(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		var c *pgconn.ConnectError
		if errors.As(err, &c) {
			return fmt.Errorf("%s: the server does not answer; look whether it runs and may be reached from here: %s", s.name, reason(c.Unwrap()))
		}
		return err
	}
	wrong := func(problem, fix string) error {
		in := data.Errorf("%w", err)
		in.File, in.Problem, in.Fix = s.name, problem, fix
		return in
	}
	user := s.config.User
	switch {
	case strings.HasPrefix(e.Code, "28"):
		return wrong(fmt.Sprintf("user %s is refused: %s", user, e.Message), "give user and password as postgres://user:password@host/database, or PGPASSWORD")
	case e.Code == "3D000":
		return wrong("there is no such database", "make it: createdb "+s.config.Database)
	case e.Code == "42501", e.Code == "25006":
		return wrong(fmt.Sprintf("user %s may not write here: %s", user, e.Message), "GRANT CREATE, USAGE ON SCHEMA ... TO "+user+", or use another database")
	case e.Code == "42P01", e.Code == "42703":
		return wrong("its tables are those of another application: "+e.Message, "use another database, or a schema: ?search_path=name")
	case e.Code == "53300":
		return fmt.Errorf("%s: it has no connection left; let fewer workers work or raise max_connections: %w", s.name, err)
	case e.Code == "53100":
		return fmt.Errorf("%s: the server's disk is full; make room and go on with --resume: %w", s.name, err)
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

// reason is the last line of a message, which may list every address that was tried.
func reason(err error) string {
	text := strings.TrimSpace(err.Error())
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

type postgresTransaction struct {
	ctx context.Context
	tx  pgx.Tx
}

func (t postgresTransaction) exec(query string, args ...any) (int64, error) {
	tag, err := t.tx.Exec(t.ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t postgresTransaction) query(query string, args []any, dest []any, each func() error) error {
	rows, err := t.tx.Query(t.ctx, query, args...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, dest, each)
	return err
}
