"""From what a researcher downloaded to a folder of scans."""
