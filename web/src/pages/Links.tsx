export default function Links() { return null; }
