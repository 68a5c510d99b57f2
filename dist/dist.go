// Package dist connects the processes, called ranks, that train one model
// together: where a launcher put them ([Find]), how bytes travel between them
// ([Transport], of which [Connect] makes the one over TCP), and their sums
// ([World]).
//
// A job has a fixed number of ranks, of which all run the same program on machines
// of the same byte order. Over TCP each pair of them has two connections: one for
// the bytes of Exchange, one for signs of life and the end of the job. The protocol
// has a version, 1, which both sides check; wire.go describes it. It promises:
//
//   - Only processes that prove the job's secret become ranks. Whatever else
//     connects is dropped after a handshake of bounded length and time.
//   - A failure of any rank (death, Abort, silence) fails the calls of all others
//     within the silence, with one error that names the first rank to fail; nobody
//     waits forever. Ranks that make different calls fail too.
//   - What was sent before Close arrives.
//
// It does not hide or sign what travels after the handshake, and does not continue
// after a failure: the job is started again from its checkpoint.
package dist

// Transport moves bytes between the ranks of a job. Its calls do not overlap,
// but may come from different goroutines; only Abort may be called at any time.
// All ranks make the same calls in the same order.
type Transport interface {
	Rank() int // of this process, from 0
	Size() int // number of ranks

	// Exchange sends send[r] to every rank r and fills recv[r] with what rank r
	// sends here. Both sides know the lengths: send[r] is as long as recv of
	// this rank at rank r. The entries of this rank itself are ignored, and
	// empty ones move nothing. When Exchange returns, recv is filled and send
	// may be reused. The error is that of Abort, of this rank or another, or
	// names the rank that was lost.
	Exchange(send, recv [][]byte) error

	// Abort ends the job because of err: pending and later calls on all ranks
	// fail with an error that names this rank and err. Only the first failure
	// counts; a later one, here or on another rank, changes nothing.
	Abort(err error)

	// Close ends the connections after the last call, on every rank. It waits
	// until all ranks have called it, so nothing on its way is lost. The error
	// is that of Exchange.
	Close() error
}
