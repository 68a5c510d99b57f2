package dist

// Place is where a launcher put this process among the ranks of its job.
type Place struct {
	Rank, Size           int    // from 0; number of ranks
	LocalRank, LocalSize int    // among the ranks of this machine; LocalSize is 0 where it is unknown
	Address              string // host:port at which rank 0 listens, for TCP
	Secret               []byte // what the ranks of a job know and strangers do not
	Launcher             string // its name, for messages
	MPI                  bool   // the launcher belongs to an MPI: ranks meet through that MPI's library, not through Address
}
