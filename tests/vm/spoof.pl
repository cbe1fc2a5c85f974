# What a container may send that is not its own: each way prints how it failed, or that it did not.
# Arguments: another's IPv4 address and a target's, in hex.
my ($other, $target) = map { pack 'H*', $_ } @ARGV;
my $to = pack 'S n a4 x8', 2, 80, $target;
for my $way (['raw', 2, 3, 17], ['raw6', 10, 3, 17], ['packet', 17, 3, 0x0008]) {
    my ($name, $family, $type, $protocol) = @$way;
    print "$name ", (socket(my $socket, $family, $type, $protocol) ? 'made' : "$!"), "\n";
}
socket(my $socket, 2, 2, 0) or die;
print 'transparent ', (setsockopt($socket, 0, 19, pack 'i', 1) ? 'set' : "$!"), "\n";
setsockopt($socket, 0, 15, pack 'i', 1);    # IP_FREEBIND, which anybody may
bind($socket, pack 'S n a4 x8', 2, 5555, $other);
print 'bound ', (defined(send($socket, 'spoofed', 0, $to)) ? 'sent' : "$!"), "\n";
