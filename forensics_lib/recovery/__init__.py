"""What was deleted: orphans, pages of databases, deleted files, carved records, and containers made of them."""
