package dist

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What travels over a connection. Numbers are little-endian.
//
//	hello    dialer     "CAROUSEL", version 2; kind 1, size 4, from 4, to 4, port 2, nonce 16
//	answer   listener   "CAROUSEL", version 2; nonce 16, proof 32
//	proof    dialer     32
//	verdict  listener   length 2, text: why the dialer is refused; empty if it is not
//
// A proof is HMAC-SHA256 with the job's secret over who proves ('L' or 'D'), the
// hello and the answer's nonce, so it holds for this connection, its two ranks
// and their roles alone. The listener proves first: a rank that dialed another
// job shows it nothing. All lengths before both proofs are constants. Magic and
// version keep their places in all versions.
//
// After the verdict a connection of kind control carries messages, one of kind
// data the bytes of Exchange, each with a header (see link).
const (
	magic   = "CAROUSEL"
	version = 1

	prefixLen = len(magic) + 2
	helloLen  = prefixLen + 1 + 3*4 + 2 + nonceLen
	answerLen = prefixLen + nonceLen + sha256.Size
	nonceLen  = 16
	textLen   = 4096 // of a verdict or an abort, at most
)

// hello is what a dialer says of itself.
type hello struct {
	kind     byte // control or data
	size     int  // number of ranks
	from, to int  // ranks
	port     int  // at which the dialer listens; 0: it does not
}

const (
	control = 'c'
	data    = 'd'
)

// errSecret is the end of a handshake with another job, or a stranger.
var errSecret = errors.New("it does not know the secret of this job")

// versionError is another version of the protocol.
type versionError int

func (v versionError) Error() string {
	return fmt.Sprintf("it speaks version %d of the protocol between ranks, this process version %d: run the same program everywhere", int(v), version)
}

// refusal is a verdict.
type refusal string

func (r refusal) Error() string { return string(r) }

// prefix begins each side's first message.
func prefix() []byte {
	return binary.LittleEndian.AppendUint16([]byte(magic), version)
}

// checkPrefix reads the other side's prefix.
func checkPrefix(b []byte) error {
	if !bytes.HasPrefix(b, []byte(magic)) {
		return fmt.Errorf("it is no rank of a job: it begins with %q", b)
	}
	if v := binary.LittleEndian.Uint16(b[len(magic):]); v != version {
		return versionError(v)
	}
	return nil
}

// proof is the MAC of one side over the dialer's hello and the listener's nonce.
func proof(secret []byte, side byte, hello, nonce []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte{side})
	mac.Write(hello)
	mac.Write(nonce)
	return mac.Sum(nil)
}

// newNonce appends a number that is used once.
func newNonce(b []byte) []byte {
	nonce := make([]byte, nonceLen)
	rand.Read(nonce) // never fails
	return append(b, nonce...)
}

// greet is the dialer's side of the handshake. The error is a refusal, a
// versionError, errSecret or one of the connection.
func greet(c io.ReadWriter, secret []byte, h hello) error {
	said := append(prefix(), h.kind)
	for _, n := range []int{h.size, h.from, h.to} {
		said = binary.LittleEndian.AppendUint32(said, uint32(n))
	}
	said = newNonce(binary.LittleEndian.AppendUint16(said, uint16(h.port)))
	if _, err := c.Write(said); err != nil {
		return err
	}
	answer := make([]byte, answerLen)
	if _, err := io.ReadFull(c, answer[:prefixLen]); err != nil {
		return err
	}
	if err := checkPrefix(answer[:prefixLen]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, answer[prefixLen:]); err != nil {
		return err
	}
	nonce, shown := answer[prefixLen:][:nonceLen], answer[prefixLen+nonceLen:]
	if !hmac.Equal(shown, proof(secret, 'L', said, nonce)) {
		return errSecret
	}
	if _, err := c.Write(proof(secret, 'D', said, nonce)); err != nil {
		return err
	}
	verdict := make([]byte, textLen)
	if _, err := io.ReadFull(c, verdict[:2]); err != nil {
		return err
	}
	n := int(binary.LittleEndian.Uint16(verdict))
	if n == 0 {
		return nil
	}
	if n > textLen {
		return fmt.Errorf("it refuses with a text of %d bytes, more than %d", n, textLen)
	}
	if _, err := io.ReadFull(c, verdict[:n]); err != nil {
		return err
	}
	return refusal(oneLine(string(verdict[:n])))
}

// answer is the listener's side of the handshake up to the dialer's proof; a
// verdict has to follow. The error is a versionError, errSecret or one that says
// what came instead of a hello.
func answer(c io.ReadWriter, secret []byte) (hello, error) {
	said := make([]byte, helloLen)
	if _, err := io.ReadFull(c, said[:prefixLen]); err != nil {
		return hello{}, err
	}
	if err := checkPrefix(said[:prefixLen]); err != nil {
		if v := versionError(0); errors.As(err, &v) {
			_, _ = c.Write(prefix()) // the dialer reports it too
		}
		return hello{}, err
	}
	if _, err := io.ReadFull(c, said[prefixLen:]); err != nil {
		return hello{}, err
	}
	reply := newNonce(prefix())
	nonce := reply[prefixLen:]
	if _, err := c.Write(append(reply, proof(secret, 'L', said, nonce)...)); err != nil {
		return hello{}, err
	}
	shown := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, shown); err != nil {
		return hello{}, errSecret // it left when it saw another job's proof
	}
	if !hmac.Equal(shown, proof(secret, 'D', said, nonce)) {
		return hello{}, errSecret
	}
	b := said[prefixLen:]
	number := func(i int) int { return int(binary.LittleEndian.Uint32(b[i:])) }
	return hello{b[0], number(1), number(5), number(9), int(binary.LittleEndian.Uint16(b[13:]))}, nil
}

// judge sends a verdict: empty, or why the dialer is refused.
func judge(c io.Writer, why string) error {
	why = oneLine(why)
	_, err := c.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(why))), why...))
	return err
}

// oneLine is a text of bounded length without line breaks and other control
// characters.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), textLen)]
}

// message is one of a control connection: kind 1, rank 4, length 4, text.
type message struct {
	kind byte
	rank int    // with abort: whose fault it is
	text string // with abort: the problem; with table: addresses of ranks 1 and up, divided by spaces
}

const (
	beat  = 'b' // the sender lives
	table = 't' // from rank 0: where the others listen
	abort = 'a' // the job has failed
	bye   = 'z' // the sender has made its last call

	messageHead = 9
	tableLen    = 1 << 22 // of a text, at most
)

// appendMessage appends a message in its wire format.
func appendMessage(b []byte, m message) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, m.kind), uint32(m.rank))
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(m.text))), m.text...)
}

// readMessage reads a message; head is memory of messageHead bytes.
func readMessage(r io.Reader, head []byte) (message, error) {
	if _, err := io.ReadFull(r, head); err != nil {
		return message{}, err
	}
	m := message{kind: head[0], rank: int(binary.LittleEndian.Uint32(head[1:]))}
	n := binary.LittleEndian.Uint32(head[5:])
	if n > tableLen {
		return message{}, fmt.Errorf("a message of %d bytes, more than %d", n, tableLen)
	}
	if n > 0 {
		text := make([]byte, n)
		if _, err := io.ReadFull(r, text); err != nil {
			return message{}, err
		}
		m.text = string(text)
	}
	return m, nil
}
