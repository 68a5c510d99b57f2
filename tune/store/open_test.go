package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tune"
)

// Whatever is wrong with an address is said in one line, with what to do, and what is there is left alone.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	other := filepath.Join(dir, "other.db")
	db, err := sql.Open("sqlite", other)
	must(t, err)
	_, err = db.Exec(`CREATE TABLE trials (trial_id INTEGER PRIMARY KEY)`)
	must(t, err)
	must(t, db.Close())
	newer := filepath.Join(dir, "newer.db")
	s, err := Open(t.Context(), newer, true)
	must(t, err)
	must(t, s.Close())
	db, err = sql.Open("sqlite", newer)
	must(t, err)
	_, err = db.Exec(`UPDATE tune_study SET format = 3`)
	must(t, err)
	must(t, db.Close())

	for _, c := range []struct {
		address string
		create  bool
		want    string
	}{
		{"", true, "the study has no address; name a file, or postgres://host/database"},
		{filepath.Join(dir, "none.db"), false, "none.db: there is no such study; look at the path"},
		{filepath.Join(dir, "no", "x.db"), true, "x.db: its folder does not exist; make it: mkdir -p " + filepath.Join(dir, "no")},
		{filepath.Join(newer, "x.db"), true, "x.db: not a directory"},
		{dir, true, ": it is a directory; give the path of a file, such as " + filepath.Join(dir, "study.db")},
		{os.DevNull, true, ": it is no regular file; a study is a file on a disk"},
		{file("empty.db", ""), false, "empty.db: the file is empty; look at the path"},
		{file("notes.txt", strings.Repeat("Not a database, but some notes. ", 100)), true, "notes.txt: it is no study: expected an SQLite database; give the study another path"},
		{file("short.txt", "notes"), true, "short.txt: it is no study: expected an SQLite database; give the study another path"},
		{other, true, "other.db: it is the database of another application; give the study another path"},
		{newer, true, "newer.db: it is a study of format 3, and this carousel reads 2; use the version of carousel that began the study"},
		{"postgres://host:port/x", true, "the study's address is not understood: "},
	} {
		before, _ := os.ReadFile(c.address)
		s, err := Open(t.Context(), c.address, c.create)
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", c.address)
			continue
		}
		var in *data.InputError
		if !errors.As(err, &in) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %q (%T), expected %q", c.address, err, err, c.want)
		}
		if after, _ := os.ReadFile(c.address); string(after) != string(before) {
			t.Errorf("%s was changed", c.address)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("a file was made though none was wanted")
	}
}

// Where there is no study, and none is to be made, nothing is.
func TestNone(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.db")
	must(t, os.WriteFile(empty, nil, 0o600))
	for name, address := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "study.db") },
		"empty":    func(*testing.T) string { return empty },
		"postgres": func(t *testing.T) string { return newPostgresStudy(t) },
	} {
		t.Run(name, func(t *testing.T) {
			address := address(t)
			for range 2 {
				if s, err := Open(t.Context(), address, false); !errors.Is(err, ErrNone) {
					t.Fatal(s, err)
				}
			}
			s, err := Open(t.Context(), address, true)
			must(t, err)
			must(t, s.Close())
			s, err = Open(t.Context(), address, false)
			must(t, err)
			must(t, s.Close())
		})
	}
}

// An empty file becomes a study, and paths may hold what addresses give a meaning to.
func TestOddPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "50% a?b#c ü&mode=ro")
	must(t, os.Mkdir(dir, 0o755))
	path := filepath.Join(dir, "x;y.db?")
	must(t, os.WriteFile(path, nil, 0o600))
	s, err := Open(t.Context(), path, true)
	must(t, err)
	must(t, s.Set(t.Context(), "a", "", "b"))
	must(t, s.Close())
	t.Chdir(dir)
	s, err = Open(t.Context(), "x;y.db?", false)
	must(t, err)
	if text, err := s.Get(t.Context(), "a"); text != "b" || err != nil {
		t.Error(text, err)
	}
	must(t, s.Close())
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Error("expected the study alone when all have closed it, got", list, err)
	}
}

// A file that may only be read can be looked at; what may not be done is said with what to do.
func TestReadOnly(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everything")
	}
	path := filepath.Join(t.TempDir(), "study.db")
	s, err := Open(t.Context(), path, true)
	must(t, err)
	must(t, s.Set(t.Context(), "a", "", "b"))
	must(t, s.Close())
	must(t, os.Chmod(path, 0o444))
	s, err = Open(t.Context(), path, false)
	must(t, err)
	if text, err := s.Get(t.Context(), "a"); text != "b" || err != nil {
		t.Error(text, err)
	}
	if err := s.Set(t.Context(), "a", "b", "c"); err == nil || !strings.Contains(err.Error(), "study.db: it cannot be written; make") {
		t.Error(err)
	}
	must(t, s.Close())
	refused := func(file, dir os.FileMode, want string) {
		t.Helper()
		must(t, os.Chmod(path, file))
		must(t, os.Chmod(filepath.Dir(path), dir))
		if s, err := Open(t.Context(), path, false); err == nil {
			s.Close()
			t.Error("it was opened")
		} else if !strings.Contains(err.Error(), "study.db: "+want) {
			t.Error(err)
		}
		must(t, os.Chmod(filepath.Dir(path), 0o700))
	}
	refused(0o000, 0o700, "it cannot be opened; look at the permissions")
	refused(0o600, 0o500, "it cannot be written; make the file and its folder writable")
}

// Workers that begin at once begin one study.
func TestOpenTogether(t *testing.T) {
	for name, address := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "study.db") },
		"postgres": func(t *testing.T) string { return newPostgresStudy(t) },
	} {
		t.Run(name, func(t *testing.T) {
			address := address(t)
			errs := make(chan error)
			for range 6 {
				go func() {
					s, err := Open(t.Context(), address, true)
					if err == nil {
						err = s.Create(t.Context(), &tune.Header{})
						s.Close()
					}
					errs <- err
				}()
			}
			begun := 0
			for range 6 {
				if err := <-errs; err == nil {
					begun++
				} else if !errors.Is(err, tune.ErrTaken) {
					t.Error(err)
				}
			}
			if begun != 1 {
				t.Errorf("it was begun %d times", begun)
			}
		})
	}
}

// A store that is waited for is given up when the context ends.
func TestCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "study.db")
	s, err := Open(t.Context(), path, true)
	must(t, err)
	defer s.Close()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	one, err := db.Conn(t.Context())
	must(t, err)
	defer one.Close()
	_, err = one.ExecContext(t.Context(), `BEGIN IMMEDIATE`)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Set(ctx, "a", "", "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	_, err = one.ExecContext(t.Context(), `ROLLBACK`)
	must(t, err)
	must(t, s.Set(t.Context(), "a", "", "b"))
}

// A commit waits for the disk, and readers do not wait for writers.
func TestSettings(t *testing.T) {
	s, err := openSQLite(t.Context(), filepath.Join(t.TempDir(), "study.db"), true)
	must(t, err)
	defer s.close()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "busy_timeout": "60000"} {
		got := ""
		must(t, s.(*sqliteFile).db.QueryRow("PRAGMA "+pragma).Scan(&got))
		if got != want {
			t.Errorf("%s is %s, expected %s", pragma, got, want)
		}
	}
}

func TestPublicHasNoPassword(t *testing.T) {
	for address, want := range map[string]string{
		"study.db":              "study.db",
		"a:b@c.db":              "a:b@c.db",
		"postgres://db/studies": "postgres://db/studies",
		"postgres://tuner:se@cret@db:1,e:2/s?a=b":             "postgres://tuner@db:1,e:2/s?a=b",
		"postgres://tuner@db/s?password=secret":               "postgres://tuner@db/s",
		"postgresql://db/s?pass%77ord=secret&b=c":             "postgresql://db/s?b=c",
		"postgres://t:secret@/s?host=/run&sslpassword=secret": "postgres://t@/s?host=/run",
	} {
		if got := Public(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// A file gives the room of checkpoints that are gone back, and keeps what is left.
func TestShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "study.db")
	s, err := Open(t.Context(), path, true)
	must(t, err)
	ctx := t.Context()
	var pieces []int
	blob := make([]byte, 1<<20)
	for n := range 6 {
		must(t, s.Add(ctx, running(n), time.Hour))
		must(t, s.Checkpoint(ctx, n, 1, blob))
		must(t, s.Finish(ctx, &tune.Piece{N: n, Epoch: 1, State: tune.Paused}, false))
		pieces = append(pieces, n)
	}
	closed := func() int64 {
		t.Helper()
		must(t, s.Close())
		info, err := os.Stat(path)
		must(t, err)
		if s, err = Open(ctx, path, false); err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	defer func() { s.Close() }()
	before := closed()
	must(t, s.Discard(ctx, pieces[:2])) // the next ones fill it
	some := closed()
	must(t, s.Discard(ctx, pieces[:5]))
	if after := closed(); before < 6<<20 || some != before || after < 1<<20 || after > 5<<20/4 {
		t.Errorf("%d bytes with 6 MiB of checkpoints, %d with 4, %d with 1", before, some, after)
	}
	for n := range 6 {
		if got, err := s.Restore(ctx, n, 0); err != nil || (n == 5) != (len(got) == len(blob)) {
			t.Errorf("trial %d: %d bytes, %v", n, len(got), err)
		}
	}
}
