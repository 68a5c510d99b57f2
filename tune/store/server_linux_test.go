package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tune"
)

// A server is PostgreSQL with its data in a temporary folder, as an unprivileged user, on a socket there.
type server struct {
	bin, dir string
	as       *syscall.Credential
	process  *exec.Cmd
}

var (
	shared     *server
	sharedErr  error
	sharedOnce sync.Once
	schemas    int
)

// postgres returns the server that the tests share, and skips the test where there is none.
func postgres(t testing.TB) *server {
	sharedOnce.Do(func() { shared, sharedErr = newServer() })
	if sharedErr != nil {
		t.Skip("no PostgreSQL: ", sharedErr)
	}
	return shared
}

// newServer makes a server and starts it.
func newServer() (s *server, err error) {
	s = &server{}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no initdb")
	}
	s.bin = filepath.Dir(found[len(found)-1])
	if os.Getuid() == 0 { // which PostgreSQL refuses
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil { // a short path: that of a socket has about 100 bytes
		return nil, err
	}
	if s.as != nil {
		err = os.Chown(s.dir, int(s.as.Uid), int(s.as.Gid))
	}
	if err == nil {
		// Commits are not on the disk at once: the tests end processes, not the machine.
		out, e := s.command("initdb", "-D", s.dir+"/data", "-U", "tuner", "-A", "trust", "-N", "-E", "UTF8", "--locale=C").CombinedOutput()
		if err = e; err != nil {
			err = fmt.Errorf("initdb: %w: %s", err, out)
		}
	}
	if err == nil {
		err = os.WriteFile(s.dir+"/data/pg_hba.conf", []byte("local all guarded scram-sha-256\nlocal all all trust\n"), 0o644)
	}
	if err == nil {
		err = s.start()
	}
	if err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	return s, nil
}

func (s *server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Pdeathsig: syscall.SIGQUIT}
	return c
}

func (s *server) start() error {
	var log bytes.Buffer
	s.process = s.command("postgres", "-D", s.dir+"/data", "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60")
	s.process.Stdout, s.process.Stderr = &log, &log
	if err := s.process.Start(); err != nil {
		return err
	}
	for range 200 {
		c, err := pgx.Connect(context.Background(), s.address("postgres", ""))
		if err == nil {
			return c.Close(context.Background())
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.stop(syscall.SIGQUIT)
	return fmt.Errorf("it did not start: %s", log.String())
}

func (s *server) stop(how syscall.Signal) {
	s.process.Process.Signal(how)
	s.process.Wait()
}

// address is that of a schema in a database, of the user who may do everything.
func (s *server) address(database, schema string) string {
	q := url.Values{"host": {s.dir}}
	if schema != "" {
		q.Set("search_path", schema)
	}
	return "postgres://tuner@/" + database + "?" + q.Encode()
}

// newPostgresStudy returns the address of an empty study.
func newPostgresStudy(t testing.TB) string {
	s := postgres(t)
	schemas++
	return s.address("postgres", fmt.Sprintf("study_%d", schemas))
}

func TestMain(m *testing.M) {
	if address := os.Getenv("TUNE_STUDY"); address != "" {
		if err := worker(address, os.Getenv("TUNE_LOG")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if shared != nil {
		shared.stop(syscall.SIGINT)
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// run runs SQL as the user who may do everything.
func (s *server) run(t *testing.T, statements ...string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.address("postgres", ""))
	must(t, err)
	defer c.Close(t.Context())
	for _, one := range statements {
		if _, err := c.Exec(t.Context(), one); err != nil {
			t.Fatal(strings.TrimSpace(one), err)
		}
	}
}

func TestPostgresErrors(t *testing.T) {
	s := postgres(t)
	s.run(t, `DROP SCHEMA IF EXISTS theirs CASCADE`, `DROP ROLE IF EXISTS guarded`, `DROP ROLE IF EXISTS guest`, // of an earlier run on the same server
		`CREATE ROLE guarded LOGIN PASSWORD 'right'`, `CREATE ROLE guest LOGIN`,
		`CREATE SCHEMA theirs`, `CREATE TABLE theirs.tune_study (x INT)`, `GRANT ALL ON SCHEMA theirs TO guest`, `GRANT SELECT ON theirs.tune_study TO guest`)
	as := func(user, database, schema string) string {
		return strings.Replace(s.address(database, schema), "tuner@", user+"@", 1)
	}
	study := newPostgresStudy(t)
	first, err := Open(t.Context(), study, true)
	must(t, err)
	must(t, first.Close())
	for _, c := range []struct {
		address string
		create  bool
		wrong   bool // the address or what is there, rather than the server
		want    string
	}{
		{as("guarded:secret", "postgres", ""), true, true, `user guarded is refused: password authentication failed for user "guarded"; give user and password as`},
		{as("nobody", "postgres", ""), true, true, `user nobody is refused: role "nobody" does not exist; give`},
		{as("tuner", "none", ""), true, true, "/none: there is no such database; make it: createdb none"},
		{as("tuner", "postgres", "not_there"), false, true, "/postgres: it holds no study; look at the database's name, and at search_path"},
		{as("guest", "postgres", ""), true, true, "user guest may not write here: permission denied for schema public; GRANT"},
		{as("guest", "postgres", "mine"), true, true, "user guest may not write here: permission denied for database postgres; GRANT"},
		{as("tuner", "postgres", "theirs"), true, true, `its tables are those of another application: column "format" does not exist; use`},
		{"postgres://tuner:secret@127.0.0.1:1/x", true, false, "postgres://127.0.0.1:1/x: the server does not answer; look whether it runs and may be reached from here: "},
		{"postgres://tuner:secret@host.invalid/x", true, false, "postgres://host.invalid:5432/x: the server does not answer; "},
	} {
		s, err := Open(t.Context(), c.address, c.create)
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", c.address)
			continue
		}
		var in *data.InputError
		if errors.As(err, &in) != c.wrong || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s:\ngot %q (%T)\nexpected %q", c.address, err, err, c.want)
		}
	}
	right, err := Open(t.Context(), as("guarded:right", "postgres", "theirs"), false)
	if err == nil {
		right.Close()
	}
	if err == nil || strings.Contains(err.Error(), "password") {
		t.Error("the right password is refused:", err)
	}
}

// A server that restarts, or a connection that is cut, costs time and no study.
func TestServerRestarts(t *testing.T) {
	s := postgres(t)
	study, err := Open(t.Context(), newPostgresStudy(t), true)
	must(t, err)
	defer study.Close()
	must(t, study.Add(t.Context(), running(0), time.Hour))
	report := func(at int) { must(t, study.Report(t.Context(), 0, 1, tune.Point{At: at, Values: []float64{1}})) }
	report(1)
	s.run(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
	report(2)
	s.stop(syscall.SIGINT)
	done := make(chan error)
	go func() {
		done <- study.Report(t.Context(), 0, 1, tune.Point{At: 3, Values: []float64{1}})
	}()
	must(t, s.start())
	must(t, <-done)
	s.stop(syscall.SIGQUIT) // as if it had crashed
	must(t, s.start())
	report(4)
	if list, _ := all(t, study, 0); len(list[0].Points) != 4 {
		t.Error(list)
	}
}
