package dist

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

var job = []byte("secret of the job")

// pair is a connection of this process with itself.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// between runs both sides of a handshake; change alters what the dialer says, message
// by message.
func between(t *testing.T, dialer, listener []byte, h hello, why string, change func(message int, b []byte)) (got hello, dialed, answered error) {
	t.Helper()
	a, b := pair(t)
	done := make(chan error, 1)
	go func() {
		done <- greet(&altered{a, change, 0}, dialer, h)
		a.Close()
	}()
	if got, answered = answer(b, listener); answered == nil {
		answered = judge(b, why)
	}
	b.Close()
	return got, <-done, answered
}

// altered is a connection whose written messages are changed.
type altered struct {
	io.ReadWriter
	change func(message int, b []byte)
	n      int
}

func (a *altered) Write(b []byte) (int, error) {
	b = bytes.Clone(b)
	if a.change != nil {
		a.change(a.n, b)
	}
	a.n++
	return a.ReadWriter.Write(b)
}

// Both sides learn of each other, or why not; nothing of a hello can be changed on
// its way.
func TestHandshake(t *testing.T) {
	h := hello{kind: data, size: 70_000, from: 65_999, to: 3, port: 65_535}
	got, dialed, answered := between(t, job, job, h, "", nil)
	if got != h || dialed != nil || answered != nil {
		t.Errorf("%+v, %v, %v", got, dialed, answered)
	}
	_, dialed, answered = between(t, job, job, h, "too\nmany\x1b[31m", nil)
	if answered != nil || dialed != refusal("too many [31m") {
		t.Errorf("refused: %v, %v", dialed, answered)
	}
	_, dialed, _ = between(t, job, job, h, strings.Repeat("é", 5000), nil)
	if why := refusal(""); !errors.As(dialed, &why) || len(why) < textLen-4 || strings.Trim(string(why), "é") != "" {
		t.Errorf("refused at length: %v", dialed)
	}
	_, dialed, answered = between(t, []byte("another"), job, h, "", nil)
	if !errors.Is(dialed, errSecret) || !errors.Is(answered, errSecret) {
		t.Errorf("another secret: %v, %v", dialed, answered)
	}
	for i := prefixLen; i < helloLen; i++ {
		_, dialed, answered := between(t, job, job, h, "", func(m int, b []byte) {
			if m == 0 {
				b[i] ^= 1
			}
		})
		if !errors.Is(dialed, errSecret) || !errors.Is(answered, errSecret) {
			t.Errorf("byte %d of the hello changed: %v, %v", i, dialed, answered)
		}
	}
	_, dialed, answered = between(t, job, job, h, "", func(m int, b []byte) {
		if m == 1 {
			b[31] ^= 128
		}
	})
	if dialed == nil || !errors.Is(answered, errSecret) {
		t.Errorf("proof changed: %v, %v", dialed, answered)
	}
	_, dialed, answered = between(t, job, job, h, "", func(m int, b []byte) {
		if m == 0 {
			b[len(magic)] = 9
		}
	})
	if want := versionError(9); dialed == nil || !errors.Is(answered, want) {
		t.Errorf("another version: %v, %v", dialed, answered)
	}
}

// Who does not know the secret cannot send back what it was sent.
func TestProofsAreOfOneSide(t *testing.T) {
	a, b := pair(t)
	defer a.Close()
	go func() {
		said := append(append(prefix(), make([]byte, helloLen-prefixLen-nonceLen)...), make([]byte, nonceLen)...)
		a.Write(said)
		reply := make([]byte, answerLen)
		io.ReadFull(a, reply)
		a.Write(reply[prefixLen+nonceLen:])
	}()
	if _, err := answer(b, job); !errors.Is(err, errSecret) {
		t.Errorf("its own proof is taken for the dialer's: %v", err)
	}
}

// said is a connection on which the other side says some bytes, whatever it gets.
type said struct{ io.Reader }

func (said) Write(b []byte) (int, error) { return len(b), nil }

// FuzzHandshake wants both sides to refuse all that does not know the secret, without
// reading more than a handshake has.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.Add(append(prefix(), make([]byte, 200)...))
	f.Add(append(prefix(), bytes.Repeat([]byte{0xff}, 200)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if h, err := answer(said{r}, job); err == nil {
			t.Errorf("a stranger is %+v", h)
		}
		if n := len(b) - r.Len(); n > helloLen+32 {
			t.Errorf("%d bytes of a stranger were read", n)
		}
		r = bytes.NewReader(b)
		if err := greet(said{r}, job, hello{}); err == nil {
			t.Error("a stranger is taken for a rank")
		}
		if n := len(b) - r.Len(); n > answerLen {
			t.Errorf("%d bytes of a stranger were read", n)
		}
	})
}

// FuzzMessage wants messages to be read as they were written, and all others to fail
// without more memory than they have bytes, up to a bound.
func FuzzMessage(f *testing.F) {
	f.Add(appendMessage(nil, message{abort, 3, "the loss is not a number"}))
	f.Add(appendMessage(nil, message{kind: beat}))
	f.Add([]byte("a\x01\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b), make([]byte, messageHead))
		if err != nil {
			return
		}
		if again := appendMessage(nil, m); !bytes.HasPrefix(b, again) {
			t.Errorf("%q is read as %+v, written as %q", b, m, again)
		}
	})
}
