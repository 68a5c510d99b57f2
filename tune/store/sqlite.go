package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/carousel-ml/carousel/data"
)

// busyTime is how long a process waits for the others' transactions.
const busyTime = time.Minute

type sqliteFile struct {
	path    string
	db      *sql.DB
	writing chan struct{} // holds the turn to write, so that goroutines do not poll for it as processes do
}

var sqliteDialect = strings.NewReplacer("{int}", "INTEGER", "{blob}", "BLOB", "{compact}", "WITHOUT ROWID")

func openSQLite(ctx context.Context, path string, mayCreate bool) (database, error) {
	wrong := func(problem, fix string) error { return &data.InputError{File: path, Problem: problem, Fix: fix} }
	there := false
	switch info, err := os.Stat(path); {
	case path == "":
		return nil, &data.InputError{Problem: "the study has no address", Fix: "name a file, or postgres://host/database"}
	case errors.Is(err, os.ErrNotExist):
		if !mayCreate {
			return nil, noStudy(path, "there is no such study", "look at the path")
		}
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return nil, wrong("its folder does not exist", "make it: mkdir -p "+filepath.Dir(path))
		}
	case err != nil:
		return nil, wrong(plain(err), "")
	case info.IsDir():
		return nil, wrong("it is a directory", "give the path of a file, such as "+filepath.Join(path, "study.db"))
	case !info.Mode().IsRegular():
		return nil, wrong("it is no regular file", "a study is a file on a disk")
	default:
		there = info.Size() > 0
	}
	if !there && !mayCreate {
		return nil, noStudy(path, "the file is empty", "look at the path")
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	full = filepath.ToSlash(full)
	if !strings.HasPrefix(full, "/") {
		full = "/" + full // C:/...
	}
	// FULL: a commit is on the disk when it returns. The size to which the log is cut is that of a checkpoint or two.
	address := url.URL{Scheme: "file", Path: full, RawQuery: url.Values{
		"_txlock": {"immediate"}, "_busy_timeout": {fmt.Sprint(busyTime.Milliseconds())}, "_synchronous": {"FULL"},
		"_pragma": {"journal_size_limit(67108864)"}, "_error_rc": {"1"}, "mode": {map[bool]string{false: "rw", true: "rwc"}[mayCreate]},
	}.Encode()}
	db, err := sql.Open("sqlite", address.String())
	if err != nil {
		return nil, err
	}
	f := &sqliteFile{path: path, db: db, writing: make(chan struct{}, 1)}
	if !there {
		_, err = db.ExecContext(ctx, `PRAGMA auto_vacuum = INCREMENTAL`) // for shrink; it is only taken by a file without tables
	}
	if err == nil {
		err = f.prepare(ctx, mayCreate)
	}
	if err != nil {
		db.Close()
		return nil, f.explain(err)
	}
	return f, nil
}

// prepare makes the tables, or looks at those that are there. Nothing is changed of a file that is no study.
func (f *sqliteFile) prepare(ctx context.Context, mayCreate bool) error {
	err := f.do(ctx, false, func(t transaction) error {
		var names []string
		name := ""
		err := t.query(`SELECT name FROM sqlite_master WHERE type = 'table'`, nil, []any{&name}, func() error {
			names = append(names, name)
			return nil
		})
		switch {
		case err != nil:
			return err
		case slices.Contains(names, "tune_study"):
			return checkFormat(t, f.path)
		case len(names) > 0:
			return &data.InputError{File: f.path, Problem: "it is the database of another application", Fix: "give the study another path"}
		case !mayCreate:
			return noStudy(f.path, "it holds no study", "look at the path")
		}
		return create(t, sqliteDialect)
	})
	if err != nil {
		return err
	}
	// The log lets workers read while one writes. The mode stays with the file; the change to it does not wait for others by itself.
	for end := time.Now().Add(busyTime); ; {
		_, err := f.db.ExecContext(ctx, `PRAGMA journal_mode = WAL`)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Now().After(end) {
			return f.explain(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (f *sqliteFile) now() string { return `CAST(unixepoch('subsec') * 1000 AS INTEGER)` }

// shrink cuts the file off behind what is used if that is less than half of it. Otherwise the next checkpoints fill it.
func (f *sqliteFile) shrink(ctx context.Context) error {
	return f.do(ctx, false, func(t transaction) error {
		free, pages := 0, 0
		err := t.query(`SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count`, nil, []any{&free, &pages}, once)
		if err != nil || 2*free <= pages {
			return err
		}
		return t.query(`PRAGMA incremental_vacuum`, nil, nil, once) // an empty row for each page
	})
}

func (f *sqliteFile) close() error { return f.db.Close() }

func (f *sqliteFile) do(ctx context.Context, readOnly bool, work func(transaction) error) error {
	if !readOnly {
		select {
		case f.writing <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-f.writing }()
	}
	tx, err := f.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: readOnly})
	if err != nil {
		return f.explain(err)
	}
	defer tx.Rollback() // of one that is committed does nothing
	if err := work(sqliteTransaction{ctx, tx}); err != nil {
		return f.explain(err)
	}
	return f.explain(tx.Commit())
}

// explain makes a message for people of SQLite's.
func (f *sqliteFile) explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	wrong := func(problem, fix string) error {
		in := data.Errorf("%w", err)
		in.File, in.Problem, in.Fix = f.path, problem, fix
		return in
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return wrong("it is no study: expected an SQLite database", "give the study another path")
	case sqlite3.SQLITE_CORRUPT:
		return wrong("the file is damaged", "look at it with: sqlite3 FILE .recover")
	case sqlite3.SQLITE_READONLY:
		return wrong("it cannot be written", "make the file and its folder writable, or go on with a copy")
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return wrong("it cannot be opened", "look at the permissions of the file and of its folder, which must be writable")
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: the disk is full; make room and go on with --resume: %w", f.path, err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("%s: another process has locked it for more than %s; look whether one hangs: %w", f.path, busyTime, err)
	case sqlite3.SQLITE_TOOBIG:
		return fmt.Errorf("%s: a checkpoint is larger than 1 GB, which SQLite does not hold: %w", f.path, err)
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

// plain is an error of the file system without the path.
func plain(err error) string {
	var e *os.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}

type sqliteTransaction struct {
	ctx context.Context
	tx  *sql.Tx
}

func (t sqliteTransaction) exec(query string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t sqliteTransaction) query(query string, args []any, dest []any, each func() error) error {
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		if err := each(); err != nil {
			return err
		}
	}
	return rows.Err()
}
