package data

import (
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func read(r *LineReader) (lines []string, err error) {
	for {
		line, err := r.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, line)
	}
}

// What is in front of the first line, and what ends lines, is the same for a
// file, for memory and for a stream that comes byte by byte.
func TestLinesFromAnywhere(t *testing.T) {
	for _, c := range []struct {
		content, want string
		fault         string
	}{
		{"one\ntwo\n", "one|two", ""},
		{"\xef\xbb\xbfone\r\ntwo", "one|two", ""},
		{zipped("\xef\xbb\xbfone\ntwo\n"), "one|two", ""},
		{"one\rtwo\r\rfour", "one|two||four", ""},
		{"one\rtwo\nthree", "one\rtwo|three", ""}, // a carriage return inside a line
		{"one\r", "one", ""},
		{"\n\none\n", "||one", ""},
		{"", "", ""},
		{"\xef", "ï", ""},
		{"BZhang\n", "BZhang", ""},
		{"\xff\xfeo\x00n\x00e\x00", "", "is text in UTF-16"},
		{"\xfe\xff\x00o\x00n\x00e", "", "is text in UTF-16"},
		{"PK\x03\x04", "", "is a zip archive"},
		{"PAR1", "", "is a Parquet file"},
		{zipped("one")[:12], "", "cut short"},
	} {
		path := textFile(t, "x", c.content)
		for from, open := range map[string]func() (*LineReader, error){
			"file":   func() (*LineReader, error) { return OpenLines(path, "") },
			"memory": func() (*LineReader, error) { return LinesOf("x", []byte(c.content), "") },
			"stream": func() (*LineReader, error) { return NewLineReader("x", strings.NewReader(c.content), "") },
			"bytes": func() (*LineReader, error) {
				if strings.Contains(c.content, "\rtwo\r") || strings.HasPrefix(c.content, "P") { // not known by the first byte
					return NewLineReader("x", strings.NewReader(c.content), "")
				}
				return NewLineReader("x", iotest.OneByteReader(strings.NewReader(c.content)), "")
			},
			"standard input": func() (*LineReader, error) {
				f, err := os.Open(path)
				if err != nil {
					return nil, err
				}
				defer func(was *os.File) { os.Stdin = was }(os.Stdin)
				os.Stdin = f
				return OpenLines(Stdin, "")
			},
		} {
			r, err := open()
			var lines []string
			if err == nil {
				lines, err = read(r)
			}
			if got := strings.Join(lines, "|"); got != c.want {
				t.Errorf("%q from %s: got %q, want %q (%v)", c.content, from, got, c.want, err)
			}
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("%q from %s: %v, want %q", c.content, from, err, c.fault)
			}
		}
	}
}

// Somebody who types gets an answer to each line.
func TestLinesAsTheyCome(t *testing.T) {
	in, out := io.Pipe()
	go out.Write([]byte("one\n"))
	r, err := NewLineReader("x", in, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two", "three"} {
		line, err := r.Next()
		if err != nil || line != want {
			t.Fatalf("got %q, %v", line, err)
		}
		next := map[string]string{"one": "two\n", "two": "three\n"}[want]
		go func() {
			if next != "" {
				out.Write([]byte(next))
			}
			if next == "" {
				out.Close()
			}
		}()
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	}
}

// An error of the source is repeated, so that no reader above can lose it.
func TestLinesKeepTheirError(t *testing.T) {
	r, err := NewLineReader("x", io.MultiReader(strings.NewReader("one\n"), iotest.ErrReader(os.ErrDeadlineExceeded), strings.NewReader("two\n")), "")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := r.Next(); line != "one" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
	for range 3 {
		r.head()
		if line, err := r.Next(); err == nil || err == io.EOF {
			t.Errorf("got %q, %v", line, err)
		}
	}
}

func TestLikeLatin1(t *testing.T) {
	for s, want := range map[string]bool{
		"Gr\xf6\xdfe;Stra\xdfe": true, "cr\xe9\xe9e": true, "CR\xc9\xc9E": true, "\xc4rzte, \xfcber": true, "d\xe9\xe7u": true,
		"\xd6\xd0\xce\xc4": false, "A\xb9\xc9": false, "T\xd0\xf4": false, "\xed\xe0": false, "a,\xd6\xd0,b": false,
		"\xef\xf0\xe8\xe2\xe5\xf2 \xec\xe8\xf0": false, // Russian in Windows-1251
		"\x93\xfa\x96{\x8c\xea":                 false, // Japanese in Shift-JIS
	} {
		if got := likeLatin1([]byte(s)); got != want {
			t.Errorf("%q: got %v", s, got)
		}
	}
}
