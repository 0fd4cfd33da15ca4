"""What is known of files by those who write them and those who keep them."""

import errno

# What the system says when a disk, a quota or a file is full.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# Files of entries that carry their own checksums: the store leaves checking them to whoever reads them,
# since a request reads few of many.
ENTRIES = ".entries"
