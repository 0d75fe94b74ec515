//! How each command of Redis may be written: a line each, in the order of the table.
//!
//! `@k` is a key of kind `k` with the command's tag, `&k` one of any tag, kind `a` is any; what `$word` stands for is
//! in `draw`.

/// Scripts whose outcome is determined. They are on every server.
pub(crate) const SCRIPTS: &[&str] = &[
    "return {KEYS[1], ARGV[1]}",
    "return redis.call('get', KEYS[1])",
    "redis.call('set', KEYS[1], ARGV[1]) return {1, 'two', {3, false}}",
    "return redis.call('incr', KEYS[1])",
    "return redis.error_reply('MINE no')",
    "return redis.status_reply(KEYS[2] or 'one')",
];

/// Functions of the library.
pub(crate) const FUNCTIONS: &[&str] = &["put", "look", "nobody"];

/// The library. It is on every server.
pub(crate) const LIBRARY: &str = "#!lua name=differential
redis.register_function('put', function(keys, args) return redis.call('set', keys[1], args[1]) end)
redis.register_function{function_name = 'look', flags = {'no-writes'},
    callback = function(keys, args) return redis.call('exists', keys[1]) end}";

/// The lines.
pub(crate) const SHAPES: &str = "\
APPEND @s $v
AUTH x
AUTH a b c
BITCOUNT @b
BITCOUNT @b $i $i
BITCOUNT @b $u $o BIT
BITFIELD @b SET u8 $u $u GET i5 $u
BITFIELD @b OVERFLOW FAIL INCRBY u2 $u 1
BITFIELD @b INCRBY i8 #1 $i
BITFIELD_RO @b GET u4 $u
BITOP AND @b @b @b
BITOP NOT @b @b
BITOP XOR @b @b @s
BITPOS @b 1
BITPOS @b 0 $i
BITPOS @b 1 $i $i BIT
CLIENT GETNAME
CLIENT SETNAME $f
CLIENT ID
CLIENT $v
CLIENT INFO
CLIENT SETINFO LIB-NAME $f
COMMAND
COMMAND COUNT
COMMAND $v
COMMAND LIST
COMMAND DOCS GET
COMMAND INFO GET XADD ZUNIONSTORE nobody
COMMAND GETKEYS GEORADIUSBYMEMBER a store 1 m STORE b
COMMAND GETKEYS MSET a 1 b 2
COMMAND GETKEYS OBJECT ENCODING a
COMMAND GETKEYS XGROUP DESTROY a g
COMMAND GETKEYS ZUNIONSTORE d 2 a b
COMMAND GETKEYS PING x
COPY @s @s
COPY @l @l REPLACE
COPY @h @h REPLACE
COPY @m @m REPLACE
COPY @z @z REPLACE
COPY @x @x REPLACE
DBSIZE
DECR @n
DECRBY @n $i
DEL &a
DEL &e
DEL &a &a &a
DEL &a &a &a &a &a &a
DUMP @a
DUMP @s
DUMP @z
ECHO $v
EVAL $script 1 @s $v
EVAL $script 1 @n $v
EVAL $script 2 @s @s $v
EVAL $script 0
EVAL $script 9 @s
EVAL_RO $script 1 @s $v
EVALSHA $sha 1 @s $v
EVALSHA_RO $sha 1 @n $v
EXISTS @a
EXISTS &a &a &a &a
EXPIRE @a $t
EXPIRE @a $t NX
EXPIRE @a $t XX
EXPIRE @a $t GT
EXPIRE @a $t LT
EXPIRE @a -1
EXPIREAT @a $T
EXPIREAT @a $T GT
EXPIRETIME @a
FCALL $function 1 @s $v
FCALL_RO $function 1 @s $v
GEOADD @g $lon $lat $f
GEOADD @g $lon $lat $f $lon $lat $f
GEOADD @g NX CH $lon $lat $f
GEODIST @g $f $f km
GEOHASH @g $f $f
GEOPOS @g $f $f
GEORADIUS @g $lon $lat 9000 km ASC COUNT 3 WITHDIST
GEORADIUS @g $lon $lat 9000 km STORE @z
GEORADIUS_RO @g $lon $lat 9000 km DESC WITHCOORD
GEORADIUSBYMEMBER @g $f 9000 km WITHHASH
GEORADIUSBYMEMBER @g $f 9000 km STOREDIST @z
GEORADIUSBYMEMBER @g store 9000 km
GEORADIUSBYMEMBER_RO @g $f 9000 km ASC
GEOSEARCH @g FROMLONLAT $lon $lat BYRADIUS 9000 km ASC
GEOSEARCH @g FROMMEMBER $f BYBOX 9000 9000 km WITHCOORD WITHDIST WITHHASH
GEOSEARCHSTORE @z @g FROMLONLAT $lon $lat BYRADIUS 9000 km STOREDIST
GET @s
GET @a
GETBIT @b $o
GETDEL @s
GETEX @s EX $t
GETEX @s PERSIST
GETEX @s EXAT $T
GETRANGE @s $i $i
GETSET @s $v
HDEL @h $f $f
HELLO
HELLO 2
HELLO x
HEXISTS @h $f
HEXPIRE @h $t FIELDS 1 $f
HEXPIREAT @h $T FIELDS 1 $f
HEXPIRETIME @h FIELDS 1 $f
HGET @h $f
HGETALL @h
HINCRBY @h $f $i
HINCRBYFLOAT @h $f $d
HKEYS @h
HLEN @h
HMGET @h $f $f $f
HMSET @h $f $v $f $v
HPERSIST @h FIELDS 1 $f
HPEXPIRE @h $ms FIELDS 1 $f
HPEXPIREAT @h $Tms FIELDS 1 $f
HPEXPIRETIME @h FIELDS 1 $f
HPTTL @h FIELDS 1 $f
HRANDFIELD @h
HRANDFIELD @h $i
HRANDFIELD @h $i WITHVALUES
HSCAN @h 0 COUNT 1000
HSET @h $f $v
HSET @h $f $v $f $u
HSETNX @h $f $v
HSTRLEN @h $f
HTTL @h FIELDS 1 $f
HVALS @h
INCR @n
INCR @s
INCRBY @n $i
INCRBYFLOAT @n $d
INFO
KEYS {7919}*
LCS @c @c
LCS @c @c LEN
LCS @c @c IDX MINMATCHLEN 2 WITHMATCHLEN
LINDEX @l $i
LINSERT @l BEFORE $f $f
LINSERT @l AFTER $f $v
LLEN @l
LMOVE @l @l LEFT RIGHT
LMPOP 2 @l @l LEFT COUNT $u
LMPOP 1 @l RIGHT
LOLWUT
LPOP @l
LPOP @l $u
LPOS @l $f
LPOS @l $f RANK -1 COUNT $u MAXLEN 5
LPUSH @l $f $v $f
LPUSHX @l $f
LRANGE @l 0 -1
LRANGE @l $i $i
LREM @l $i $f
LSET @l $i $v
LSET @l 0 $f
LTRIM @l $u -2
MEMORY USAGE @a
MEMORY FOO @a
MGET &s
MGET &s &n &s &a &s
MGET @s @s @s
MSET &s $v
MSET &s $v &n $u &s $v
MSET @c $f @c $v
MSETNX @s $v
MSETNX @s $v @s $v
OBJECT ENCODING @a
OBJECT FOO @a
OBJECT FREQ @a
OBJECT IDLETIME @a
OBJECT REFCOUNT @a
PERSIST @a
PEXPIRE @a $ms
PEXPIRE @a $ms XX
PEXPIREAT @a $Tms
PEXPIRETIME @a
PFADD @p $f $f $v
PFADD @p
PFCOUNT @p
PFCOUNT @p @p
PFMERGE @p @p @p
PING
PING $v
PSETEX @s $ms $v
PTTL @a
RANDOMKEY
RENAME @l @l
RENAME @s @s
RENAMENX @h @h
RESET
RESTORE @a 0 $payload
RESTORE @a $ms $payload REPLACE
RPOP @l
RPOP @l $u
RPOPLPUSH @l @l
RPUSH @l $f $v
RPUSH @l $u
RPUSHX @l $f $f
SADD @m $f $f $f
SADD @i $u $u
SCAN 0 COUNT 100000
SCAN 0 MATCH {7919}* COUNT 100000 TYPE list
SCARD @m
SDIFF @m @m
SDIFFSTORE @m @m @i
SELECT 0
SELECT x
SELECT 99
SET @s $v
SET @s $v EX $t
SET @s $v NX
SET @s $v XX GET
SET @s $v KEEPTTL
SET @s $v PXAT $Tms
SET @s $v BAD
SET @n $u
SET @c $f
SETBIT @b $o 1
SETBIT @b $o 0
SETEX @s $t $v
SETEX @s 0 $v
SETNX @s $v
SETRANGE @s $u $v
SINTER @m @m
SINTERCARD 2 @m @m
SINTERCARD 2 @m @i LIMIT $u
SINTERSTORE @m @m @i
SISMEMBER @m $f
SLOWLOG GET
SLOWLOG GET $i
SLOWLOG HELP
SLOWLOG LEN
SLOWLOG RESET
SMEMBERS @m
SMISMEMBER @m $f $f
SMOVE @m @m $f
SORT @l ALPHA
SORT @l BY nosort GET # STORE @l
SORT @i DESC
SORT @z ALPHA LIMIT $u $u
SORT @m ALPHA STORE @l
SORT @m BY nosort
SORT @i BY {0}n* GET # GET {7919}n*
SORT_RO @l ALPHA LIMIT 0 $u
SORT_RO @i
SPOP @m
SPOP @m $u
SPOP @i
SRANDMEMBER @m
SRANDMEMBER @i $i
SREM @m $f $f
SREM @i $u
SSCAN @m 0 COUNT 1000
STRLEN @s
SUBSTR @s 0 $i
SUNION @m @m
SUNIONSTORE @m @m @i
TIME
TOUCH @a
TOUCH &a &a &a
TTL @a
TYPE @a
UNLINK &a
UNLINK &a &a &a
XACK @x $g $id $id
XADD @x $new $f $v
XADD @x $new $f $f $f $v
XADD @x MAXLEN ~ 10 $new $f $v
XADD @x NOMKSTREAM $new $f $v
XADD @x $half $f $v
XADD @x $id $f $v
XADD @y * $f $v
XAUTOCLAIM @x $g $c 0 0 COUNT 2
XAUTOCLAIM @x $g $c 1000000000000 0 JUSTID
XCLAIM @x $g $c 0 $id $id
XCLAIM @x $g $c 0 $id IDLE 1000 RETRYCOUNT 3 FORCE JUSTID
XDEL @x $id $id
XGROUP @x $g
XGROUP CREATE @x $g 0 MKSTREAM
XGROUP CREATE @x $g $
XGROUP CREATECONSUMER @x $g $c
XGROUP DELCONSUMER @x $g $c
XGROUP DESTROY @x $g
XGROUP SETID @x $g $id
XGROUP SETID @x $g 0 ENTRIESREAD 2
XINFO CONSUMERS @x $g
XINFO GROUPS @x
XINFO $v @x
XINFO $f @x
XINFO STREAM @x
XINFO STREAM @x FULL
XLEN @x
XPENDING @x $g
XPENDING @x $g - + 10
XPENDING @x $g IDLE 1000000000000 - + 10 $c
XRANGE @x - + COUNT 3
XRANGE @x $id +
XREAD COUNT 2 STREAMS @x 0
XREAD STREAMS @x @x 0 $id
XREADGROUP GROUP $g $c COUNT 2 STREAMS @x >
XREADGROUP COUNT 2 GROUP streams $c STREAMS @x >
XREADGROUP GROUP $g $c STREAMS @x 0
XREADGROUP GROUP $g $c NOACK STREAMS @x @x > >
XREVRANGE @x + - COUNT 2
XSETID @x $new
XTRIM @x MAXLEN $u
XTRIM @x MINID ~ $id
ZADD @z $d $f $d $f
ZADD @z NX CH $d $f
ZADD @z XX GT $d $f
ZADD @z LT CH $d $f
ZADD @z INCR $d $f
ZADD @e 0 $f 0 $f
ZADD @e 0 $f
ZCARD @z
ZCOUNT @z $R $R
ZDIFF 2 @z @z WITHSCORES
ZDIFFSTORE @z 2 @z @z
ZINCRBY @z $d $f
ZINTER 2 @z @z WEIGHTS 2 $d AGGREGATE MAX WITHSCORES
ZINTERCARD 2 @z @z LIMIT $u
ZINTERSTORE @z 2 @z @m
ZLEXCOUNT @e $L $L
ZLEXCOUNT @c $L $L
ZMPOP 2 @z @z MIN COUNT $u
ZMPOP 1 @z MAX
ZMSCORE @z $f $f
ZPOPMAX @z
ZPOPMAX @z $u
ZPOPMIN @z
ZRANDMEMBER @z
ZRANDMEMBER @z $i WITHSCORES
ZRANGE @z 0 -1 WITHSCORES
ZRANGE @z $R $R BYSCORE LIMIT 0 $u
ZRANGE @e $L $L BYLEX REV
ZRANGEBYLEX @e $L $L
ZRANGEBYLEX @c $L $L
ZRANGEBYSCORE @z $R $R WITHSCORES
ZRANGESTORE @z @z $u -1
ZRANGESTORE @e @e $L $L BYLEX
ZRANK @z $f
ZREM @z $f $f
ZREM @e $f $f
ZREMRANGEBYLEX @e $L $L
ZREMRANGEBYLEX @c $L $L
ZREMRANGEBYRANK @z $u $u
ZREMRANGEBYSCORE @z $R $R
ZREVRANGE @z 0 $i WITHSCORES
ZREVRANGEBYLEX @e $L $L
ZREVRANGEBYLEX @c $L $L
ZREVRANGEBYSCORE @z $R $R LIMIT $u $u
ZREVRANK @z $f
ZSCAN @z 0 COUNT 1000
ZSCORE @z $f
ZUNION 2 @z @z WITHSCORES
ZUNION 2 @z @m AGGREGATE MIN
ZUNION x @z
ZUNIONSTORE @z 2 @z @z WEIGHTS $d 1
DEL $w
XADD $w $new $f $v
XGROUP CREATE $w $w 0 MKSTREAM
XGROUP DESTROY $w $w
XPENDING $w $w - + 10 $w
XREAD STREAMS $w 0
XREAD COUNT 2 STREAMS $w $id
XREAD STREAMS $w $w 0 $id
XREADGROUP GROUP $w $w STREAMS $w >
XREADGROUP GROUP $w $w STREAMS $w 0
XREADGROUP COUNT 2 NOACK GROUP $w $w STREAMS $w >
XREADGROUP GROUP $w $w NOACK COUNT 1 STREAMS $w >
FOO @s $f
FOO $v $f $v @s $v
GET
GET @s @s
MSET @s
";
